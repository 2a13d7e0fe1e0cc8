# frozen_string_literal: true

module Colonies
  # Waits that double from 0.05 s to 2 s, half of each random, so that clients of a restarted server do not come all at once.
  class Backoff
    def initialize
      @tries = 0
    end

    def reset
      @tries = 0
    end

    def first? = @tries.zero?

    # Seconds; never fewer than the server asked for.
    def next(at_least = nil)
      longest = [2.0, 0.05 * 2**[@tries, 16].min].min
      @tries += 1
      [longest * rand(0.5..1.0), at_least || 0.0].max
    end
  end

  # A signed connection to one server on behalf of one key. Connects when needed; for any number of threads.
  #
  #   connection.scheduler.get_process(Colonies::Scheduler::V1::GetProcessRequest.new(...))
  #
  # `scheduler` and the others have each RPC of their service under its name in snake case: unary ones return the response,
  # and server streams an Enumerable of the messages. What fails raises an Error.
  class Connection
    CALL_SECONDS = 30.0
    LOOPBACK = /\A(?:localhost|127\.\d+\.\d+\.\d+|\[::1\]):\d+\z/.freeze
    PREFIX = /\A[0-9a-f]{16}\z/.freeze
    # A service that loses its memory of nonces again and again is a fault that should be seen.
    MAX_REPEATS = 3
    # Inputs of one process may be 32 MiB, and an answer may hold several processes.
    CHANNEL_ARGS = { "grpc.max_receive_message_length" => 64 << 20, "grpc.max_reconnect_backoff_ms" => 2_000 }.freeze

    attr_reader :address, :cluster, :colony, :key

    # TLS is used with a `ca_file`, or with `tls: true` (the public authorities). Plaintext to another machine must be asked
    # for with `tls: false`.
    def initialize(address, cluster:, colony:, key:, ca_file: nil, tls: nil)
      @address = address
      @cluster = cluster
      @colony = colony
      @key = key
      @stub = GRPC::ClientStub.new(address, credentials(ca_file, tls), channel_args: CHANNEL_ARGS)
      @prefix = ""
    end

    def auth
      @auth ||= service(Auth::V1::AuthService::Service)
    end

    def registry
      @registry ||= service(Registry::V1::RegistryService::Service)
    end

    def scheduler
      @scheduler ||= service(Scheduler::V1::SchedulerService::Service)
    end

    def cron
      @cron ||= service(Cron::V1::CronService::Service)
    end

    def generator
      @generator ||= service(Cron::V1::GeneratorService::Service)
    end

    # Makes a unary call, and again while the server is out of reach or asks to call less often, for `timeout` seconds in all
    # (nil: for ever), or once, without `retries`.
    #
    # Every RPC may be repeated: submits have a request id, closes are fenced, the others set a state.
    def call(path, request, response_class, timeout: CALL_SECONDS, retries: true)
      backoff = Backoff.new
      deadline = timeout && Time.now + timeout
      begin
        signed(path, request) do |bytes, metadata|
          @stub.request_response(path, bytes, :itself.to_proc, response_class.method(:decode), deadline: deadline, metadata: metadata)
        end
      rescue Error => e
        wait = backoff.next(e.retry_delay)
        raise unless retries && e.passes? && (deadline.nil? || Time.now + wait < deadline)

        sleep(wait)
        retry
      end
    end

    # Opens a server stream when it is iterated.
    def stream(path, request, response_class)
      Stream.new do |opened, &each|
        signed(path, request) do |bytes, metadata|
          operation = @stub.server_streamer(path, bytes, :itself.to_proc, response_class.method(:decode), return_op: true, metadata: metadata)
          opened.call(operation)
          operation.execute.each(&each)
        end
      end
    end

    # Yields the bytes to send and their signature; once more when the service asks for a nonce with a prefix. A call is
    # refused so before its first response or not at all.
    def signed(path, request)
      bytes = request.class.encode(request)
      repeats = 0
      begin
        nonce = @prefix + SecureRandom.hex(Signing::NONCE_BYTES - @prefix.size / 2)
        yield bytes, Signing.sign_call(@key, method: path, audience: @cluster, body: bytes, nonce: nonce)[:metadata]
      rescue GRPC::BadStatus => e
        error = Error.of(e)
        prefix = error.reason == "NONCE_PREFIX_REQUIRED" ? error.metadata["nonce_prefix"] : nil
        # Without gRPC's own error as its cause: that says nothing more, on a screen.
        raise error, cause: nil unless PREFIX.match?(prefix.to_s) && (repeats += 1) <= MAX_REPEATS

        @prefix = prefix
        retry
      end
    end

    private

    # An object with a method for each RPC of a generated service.
    def service(description)
      connection = self
      Class.new do
        description.rpc_descs.each do |name, rpc|
          path = "/#{description.service_name}/#{name}"
          method = GRPC::GenericService.underscore(name.to_s).to_sym
          if rpc.server_streamer?
            define_method(method) { |request| connection.stream(path, request, rpc.output.type) }
          else
            define_method(method) { |request, **options| connection.call(path, request, rpc.output, **options) }
          end
        end
      end.new
    end

    def credentials(ca_file, tls)
      if tls || (tls.nil? && ca_file)
        GRPC::Core::ChannelCredentials.new(ca_file && File.read(ca_file))
      elsif tls.nil? && !LOOPBACK.match?(@address)
        raise Refused, "plaintext to #{@address} could be read on the way: set COLONIES_CA_FILE or COLONIES_TLS=on, or COLONIES_TLS=off " \
                       "if that network is trusted"
      else
        :this_channel_is_insecure
      end
    rescue SystemCallError => e
      raise Refused, "cannot read the ca_file: #{e.message}"
    end
  end

  # The messages of a server stream; iterate once. `cancel` ends it, from any thread.
  class Stream
    include Enumerable

    def initialize(&reader)
      @reader = reader
      @lock = Mutex.new
      @cancelled = false
    end

    # Raises an Error when the stream breaks or is refused; ends quietly when it is over or cancelled here.
    def each(&block)
      @reader.call(method(:opened), &block)
    rescue Error
      raise unless @cancelled
    ensure
      cancel
    end

    def cancel
      @lock.synchronize do
        @cancelled = true
        @operation&.cancel
      end
    end

    private

    def opened(operation)
      @lock.synchronize do
        @operation = operation
        raise Error.new("the stream was cancelled", code: "CANCELLED") if @cancelled
      end
    end
  end
end
