# frozen_string_literal: true

require "etc"
require "logger"
require "monitor"

module Colonies
  # A program that pulls work from a colony and runs it with its functions.
  #
  #   executor = Colonies::Executor.new("e1", types: ["edge"], connection: connection)
  #   executor.function("add") { |_attempt, a, b| a + b }
  #   executor.run
  #
  # A function is a block: it is given its Attempt, the arguments of its spec, then the outputs of its parents, then the keyword
  # arguments. What it returns is one output; `attempt.outputs(...)` are several, or none. What it raises fails the process;
  # a Retryable lets it be tried again. Functions run in threads, `concurrency` of them at most.
  class Executor
    APPROVAL_POLL_SECONDS = 1.0
    # The server shows signs of life on a stream every five seconds.
    SILENCE_SECONDS = 90.0
    # After the drain's time is over: for telling the server what was not finished.
    LAST_CLOSE_SECONDS = 10.0
    MAX_IN_FLIGHT = 1_000

    # `capabilities` are fields of Colonies::Registry::V1::Capabilities besides `cpu`, `processes` and `labels`, which this
    # adds what it knows to.
    def initialize(name, types:, connection:, concurrency: 1, labels: {}, location: "", capabilities: {}, drain_seconds: 30.0,
                   logger: Logger.new($stderr, progname: "colonies"))
      raise Refused, "concurrency is #{concurrency}: it is 1 to #{MAX_IN_FLIGHT}" unless concurrency.between?(1, MAX_IN_FLIGHT)

      @name = name
      @connection = connection
      @concurrency = concurrency
      @drain_seconds = drain_seconds
      @logger = logger
      @functions = {}
      @registration = Registry::V1::RegisterExecutorRequest.new(
        colony: connection.colony, name: name, executor_types: types, location_name: location,
        capabilities: offered(capabilities, labels)
      )
      @lock = Monitor.new
      @changed = @lock.new_cond
      @hand = Hand.new(concurrency) { |attempt, over| work(attempt, over) }
      @closer = Closer.new(connection, logger)
      @leases = Leases.new(connection, @hand, logger) { |attempt, reason| drop(attempt, reason) }
    end

    # Offers a function. Its parameters after the first are announced as its arguments.
    def function(name, description: "", &block)
      raise Refused, "this executor has a function #{name} already" if @functions.key?(name)

      @functions[name] = Function.new(name, description, block)
    end

    # Calls the block with each new state: :joining, :waiting_for_approval, :ready, :reconnecting, :draining.
    def on_state(&block)
      @on_state = block
    end

    # Calls the block with each attempt whose running function is told to stop.
    def on_drop(&block)
      @on_drop = block
    end

    # Works until SIGTERM, SIGINT or `stop`; then finishes what is in hand, takes nothing new, and returns. A second signal ends
    # it at once. `signals: false` leaves signals to the program.
    #
    # Raises an Error when the server refuses what this executor says of itself, or its owner has rejected it.
    def run(signals: true)
      former = signals ? trap_signals : {}
      threads = [background { pull }, background { @leases.keep }, background { watch_silence }]
      @lock.synchronize { @changed.wait until @stopping || @failure }
      @stream&.cancel
      raise @failure if @failure

      drain
    ensure
      threads&.each(&:kill)
      @hand.to_a.each { |attempt| drop(attempt, "SHUTDOWN") }
      former&.each { |signal, handler| trap(signal, handler) }
    end

    # Begins the drain; `run` returns when it is over. For any thread; before `run` it makes that return at once.
    def stop
      @lock.synchronize do
        @stopping = true
        @changed.broadcast
      end
    end

    private

    def offered(capabilities, labels)
      known = { "language" => "ruby", "ruby" => RUBY_VERSION, "os" => Etc.uname[:sysname].downcase, "arch" => Etc.uname[:machine] }
      own = { cpu: "#{Etc.nprocessors * 1000}m", processes: @concurrency }
      Registry::V1::Capabilities.new(**own, **capabilities, labels: known.merge(labels.transform_keys(&:to_s)))
    end

    def trap_signals
      %w[TERM INT].to_h do |signal|
        former = trap(signal) do
          trap(signal, former || "DEFAULT")
          # A handler must not take locks.
          Thread.new { stop }
        end
        [signal, former || "DEFAULT"]
      end
    end

    # A part of the executor's work; an error that it does not handle ends the executor.
    def background
      Thread.new do
        yield
      rescue StandardError => e
        @lock.synchronize do
          @failure ||= e
          @changed.broadcast
        end
      end
    end

    def state(now)
      return if @state == now

      @state = now
      @logger.info("#{@name}: #{now.to_s.tr('_', ' ')}")
      @on_state&.call(now)
    end

    def pull
      backoff = Backoff.new
      join
      until @stopping
        refusal = watch(backoff)
        break if @stopping

        state(:reconnecting)
        sleep(backoff.next(refusal&.retry_delay))
        join if refusal&.about_approval?
      end
    end

    # Reads one stream to its end; gives the Error that ended it, if one did.
    def watch(backoff)
      read_stream(backoff)
      nil
    rescue Error => e
      raise if e.code == "INVALID_ARGUMENT"

      # An outage is told of once. What is refused does not end by itself: a clock that is wrong, an approval that is missing.
      @logger.warn("no work for now: #{e.code}: #{e.message}") unless @state == :reconnecting && e.outage?
      e
    end

    def read_stream(backoff)
      request = Scheduler::V1::WatchAssignmentsRequest.new(colony_name: @connection.colony, max_in_flight: @concurrency)
      @heard_at = now
      stream = @connection.scheduler.watch_assignments(request)
      @lock.synchronize { @stopping ? return : @stream = stream }
      stream.each do |message|
        @heard_at = now
        backoff.reset
        state(:ready) unless @stopping
        take(message.assignments)
      end
    end

    def take(assignments)
      attempts = assignments.map { |assignment| Attempt.new(assignment, @connection) }
      # What comes when the drain has begun goes back to the queue: nobody confirms it.
      superseded = @lock.synchronize { @stopping ? [] : @hand.take(attempts) }
      superseded.each { |attempt| drop(attempt, "SUPERSEDED") }
    end

    # A stream that is silent for long is taken for dead, and opened again.
    def watch_silence
      loop do
        sleep(1.0)
        @stream.cancel if @stream && now - @heard_at > SILENCE_SECONDS
      end
    end

    # Returns when the executor is approved and its functions are announced.
    def join
      state(:joining)
      backoff = Backoff.new
      begin
        wait_for_approval
        functions = @functions.values.map(&:to_message)
        request = Registry::V1::AnnounceFunctionsRequest.new(colony_name: @connection.colony, functions: functions)
        @connection.registry.announce_functions(request, retries: false)
      rescue Error => e
        # It was approved a moment ago, and not every replica knows it yet; or no longer, and registering tells.
        raise unless e.passes? || e.retry_delay || e.about_approval?

        @logger.warn("cannot join yet: #{e.code}: #{e.message}") if backoff.first?
        sleep(backoff.next(e.retry_delay))
        retry
      end
    end

    def wait_for_approval
      # Whoever rescues the error of an outage says that there is one.
      until @connection.registry.register_executor(@registration, retries: false).executor.state == :EXECUTOR_STATE_APPROVED
        unless @state == :waiting_for_approval
          @logger.warn("waiting for approval in colony #{@connection.colony}: colonies executor approve #{@name}   " \
                       "(identity #{@connection.key.identity})")
        end
        state(:waiting_for_approval)
        sleep(APPROVAL_POLL_SECONDS)
      end
    end

    # One attempt, in a thread of its own: its function, then the close.
    def work(attempt, over)
      begin
        function = @functions[attempt.spec.func_name]
        outcome = function ? function.run(attempt) : unknown(attempt.spec.func_name)
      ensure
        over.call
      end
      return unless @hand.finish(attempt)

      @logger.info("#{attempt} #{outcome.is_a?(Function::Close::Failure) ? "failed: #{outcome.errors.first}" : 'successful'}")
      close(attempt, outcome)
    end

    def close(attempt, outcome)
      @closer.close(attempt, outcome)
    ensure
      # Whatever happened: what is in hand, and nobody closes any more, would be kept alive for ever.
      @hand.release(attempt)
    end

    def unknown(name)
      Function.failure("this executor has no function #{name.inspect}; it has: #{@functions.keys.sort.join(', ')} " \
                       "(work goes to any executor of its type: give those with other functions another type)")
    end

    def drop(attempt, reason)
      return unless attempt.drop(reason)

      @logger.warn("dropping #{attempt}: #{reason}")
      @hand.release(attempt)
      @on_drop&.call(attempt) unless attempt.finished
    end

    def drain
      state(:draining)
      return if @hand.wait_empty(@drain_seconds)

      @hand.to_a.each { |attempt| Thread.new { give_back(attempt) } }
      @hand.wait_empty(LAST_CLOSE_SECONDS) or @logger.error("leaving with results that the server has not taken")
    end

    # Ends a running attempt so that another executor can try; a result that only waits to be sent still is.
    def give_back(attempt)
      return unless @hand.finish(attempt)

      @logger.warn("giving back #{attempt}: this executor is shutting down")
      close(attempt, Function.failure("its executor was shut down before it was finished", retryable: true))
      attempt.drop("SHUTDOWN")
    end

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
