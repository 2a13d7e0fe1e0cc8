# frozen_string_literal: true

module Colonies
  # Ends attempts: each result is sent until the server has it, or has said that it does not want it.
  class Closer
    NOT_WANTED = %w[FAILED_PRECONDITION NOT_FOUND].freeze

    def initialize(connection, logger)
      @connection = connection
      @logger = logger
    end

    # Returns when the attempt is closed, or dropped. `outcome` is a Close::Success or a Close::Failure.
    def close(attempt, outcome)
      backoff = Backoff.new
      replaced = false
      until attempt.dropped?
        begin
          return send_close(attempt, outcome)
        rescue Error => e
          return not_wanted(attempt, e) if NOT_WANTED.include?(e.code) || (replaced && about_result?(e))

          if about_result?(e)
            replaced = true
            outcome = Function.failure("its result was refused: #{e.message}")
          else
            # The server is away, this executor is kept out for a while, or its clock is wrong: the result stays in hand.
            @logger.warn("cannot close #{attempt}, trying again: #{e.code}: #{e.message}")
            attempt.wait(backoff.next(e.retry_delay))
          end
        end
      end
    end

    private

    def send_close(attempt, outcome)
      kind = outcome.is_a?(Function::Close::Success) ? :success : :failure
      close = Function::Close.new(attempt: attempt.ref, kind => outcome)
      request = Scheduler::V1::CloseProcessesRequest.new(colony_name: @connection.colony, closes: [close])
      @connection.scheduler.close_processes(request, retries: false)
    end

    def not_wanted(attempt, error)
      @logger.warn("the result of #{attempt} is not wanted: #{error.message}")
    end

    # The services say why; without a reason it is gRPC itself, and the message is too large for it.
    def about_result?(error)
      error.code == "INVALID_ARGUMENT" || (error.code == "RESOURCE_EXHAUSTED" && error.reason.empty?)
    end
  end
end
