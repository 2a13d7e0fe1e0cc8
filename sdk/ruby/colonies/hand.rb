# frozen_string_literal: true

require "monitor"

module Colonies
  # All attempts that an executor has in hand: from assignment until the server has the result, or does not want it.
  class Hand
    # So many ended attempts are remembered, for an assignment may come again by a stream that was opened again.
    REMEMBERED = 10_000

    # Seconds between heartbeats.
    attr_reader :beat_seconds

    # The block runs each attempt in a thread of its own, at most `concurrency` at once.
    def initialize(concurrency, &run)
      @concurrency = concurrency
      @run = run
      @lock = Monitor.new
      @changed = @lock.new_cond
      @held = {}
      @ended = {}
      @waiting = []
      @running = 0
      @beat_seconds = 1.0
    end

    def to_a = @lock.synchronize { @held.values }

    # Takes what was assigned. Gives the earlier attempts that are superseded by it.
    def take(attempts)
      @lock.synchronize do
        superseded = attempts.filter_map do |attempt|
          earlier = @held[attempt.process_id]
          next if attempt.number <= [earlier&.number, @ended[attempt.process_id]].compact.max.to_i

          @held[attempt.process_id] = attempt
          @waiting << attempt
          lease(attempt.assignment.lease_ms)
          earlier
        end
        start_waiting
        @changed.broadcast
        superseded
      end
    end

    # The server said how long leases are: three heartbeats fit, so that one may be lost.
    def lease(milliseconds)
      @beat_seconds = milliseconds / 3000.0 if milliseconds.positive?
    end

    def find(ref)
      held = @lock.synchronize { @held[ref.process_id] }
      held if held&.number == ref.attempt
    end

    # Whether the caller is the one to end this attempt; nobody is when it was dropped.
    def finish(attempt)
      @lock.synchronize do
        return false if attempt.finished || attempt.dropped?

        attempt.finished = true
      end
    end

    # The server has the result, or does not want it.
    def release(attempt)
      @lock.synchronize do
        @held.delete(attempt.process_id) if @held[attempt.process_id].equal?(attempt)
        @ended[attempt.process_id] = [attempt.number, @ended.delete(attempt.process_id).to_i].max
        @ended.shift if @ended.size > REMEMBERED
        @changed.broadcast
      end
    end

    # Waits until something changes, for at most so many seconds (nil: for ever); not at all if the block says so.
    def wait(seconds)
      @lock.synchronize { @changed.wait(seconds) unless yield }
    end

    # Waits until nothing is in hand, for at most so many seconds; whether that came to be.
    def wait_empty(seconds)
      deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
      @lock.synchronize do
        until @held.empty?
          left = deadline - Process.clock_gettime(Process::CLOCK_MONOTONIC)
          return false unless left.positive?

          @changed.wait(left)
        end
        true
      end
    end

    private

    # The server does not count functions that were dropped and still run: what it sends beyond waits here.
    def start_waiting
      while @running < @concurrency && (attempt = @waiting.shift)
        next if attempt.dropped? || attempt.finished

        @running += 1
        Thread.new(attempt) { |one| @run.call(one, method(:function_over)) }
      end
    end

    def function_over
      @lock.synchronize do
        @running -= 1
        start_waiting
      end
    end
  end
end
