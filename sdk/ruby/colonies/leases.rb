# frozen_string_literal: true

module Colonies
  # Heartbeats: they confirm what has come, and keep the leases of what is in hand.
  class Leases
    MAX_HEARTBEAT = 1_000

    # The block drops an attempt, for the reason that it is given.
    def initialize(connection, hand, logger, &drop)
      @connection = connection
      @hand = hand
      @logger = logger
      @drop = drop
      @backoff = Backoff.new
      @last_beat = now
    end

    # Never returns.
    def keep
      loop do
        @hand.wait(seconds_left) { unconfirmed.any? }
        end_overdue
        began = now
        whole = began >= next_beat
        due = whole ? @hand.to_a : unconfirmed
        next if due.empty?

        begin
          due.each_slice(MAX_HEARTBEAT) { |some| beat(some) }
          @backoff.reset
          @last_beat = began if whole
        rescue Error => e
          @logger.warn("a heartbeat failed: #{e.code}: #{e.message}")
          sleep(@backoff.next(e.retry_delay))
        end
      end
    end

    private

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

    def next_beat = @last_beat + @hand.beat_seconds

    # Until there is something to do; nil for as long as nothing is in hand.
    def seconds_left
      held = @hand.to_a
      return nil if held.empty?

      [[next_beat, *held.reject(&:finished).filter_map(&:ends_at)].min - now, 0.0].max
    end

    def unconfirmed = @hand.to_a.reject { |attempt| attempt.confirmed || attempt.finished }

    def end_overdue
      time = now
      @hand.to_a.each { |attempt| @drop.call(attempt, "SUPERSEDED") if !attempt.finished && attempt.ends_at&.<=(time) }
    end

    def beat(attempts)
      request = Scheduler::V1::HeartbeatRequest.new(colony_name: @connection.colony, attempts: attempts.map(&:ref))
      # A call that hangs must leave time for another one within the lease.
      response = @connection.scheduler.heartbeat(request, timeout: [1.0, @hand.beat_seconds].max, retries: false)
      attempts.each { |attempt| attempt.confirmed = true }
      @hand.lease(response.lease_ms)
      response.drops.each do |drop|
        attempt = @hand.find(drop.attempt)
        # What has just been closed is named as well: the answer to the close says what became of a result that is on its way.
        @drop.call(attempt, drop.reason.to_s.delete_prefix("DROP_REASON_")) if attempt && !attempt.finished
      end
    end
  end
end
