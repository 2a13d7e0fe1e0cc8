# frozen_string_literal: true

module Colonies
  # One attempt at a process: what a function can know of it. For any thread.
  class Attempt
    # The assignment as it came; its `spec` has the label, the environment and all else.
    attr_reader :assignment, :connection, :taken_at
    # Why the attempt must be dropped: CANCELLED (the process), SUPERSEDED (lease or time is over, or there is a later attempt),
    # or SHUTDOWN (this executor); nil as long as its result is wanted.
    attr_reader :drop_reason
    # For the executor: a heartbeat has told the server that it came; its end is on its way, and nothing else may end it.
    attr_accessor :confirmed, :finished

    def initialize(assignment, connection)
      @assignment = assignment
      @connection = connection
      @taken_at = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      @lock = Monitor.new
      @dropping = @lock.new_cond
      @callbacks = []
    end

    def process_id = assignment.process_id

    # The attempt's number, from 1; higher when the process was tried before.
    def number = assignment.attempt

    def spec = assignment.spec

    def inputs = assignment.inputs

    # Its name on the wire: for AddLogs, SetOutput, SetAttributes and AddChildren, which `connection.scheduler` has.
    def ref = Scheduler::V1::AttemptRef.new(process_id: process_id, attempt: number)

    # What a function returns that has several outputs, or none.
    def outputs(*values) = Outputs.new(values)

    # Whether the result is not wanted any more. A function that takes long looks at this now and then, and returns.
    def dropped? = !drop_reason.nil?

    # Waits until it is dropped, for at most so many seconds; whether it is.
    def wait(seconds = nil)
      @lock.synchronize { @dropping.wait(seconds) unless dropped? }
      dropped?
    end

    # Calls the block, in another thread, when it is dropped; at once if it is already. It must not block.
    def on_drop(&block)
      @lock.synchronize { @callbacks << block unless dropped? }
      yield if dropped?
    end

    # For the executor: tells the function to stop. False if it was told before.
    def drop(reason)
      callbacks = @lock.synchronize do
        return false if dropped?

        @drop_reason = reason
        @dropping.broadcast
        @callbacks
      end
      callbacks.each(&:call)
      true
    end

    # Seconds of the monotonic clock at which `max_exec_time_ms` is over, counted from when it came; nil for no limit.
    def ends_at
      taken_at + spec.max_exec_time_ms / 1000.0 if assignment.exec_deadline
    end

    def to_s = "#{spec.node_name.empty? ? spec.func_name : spec.node_name} (process #{process_id}, attempt #{number})"
  end
end
