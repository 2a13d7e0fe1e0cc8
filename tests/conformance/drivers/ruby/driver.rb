# frozen_string_literal: true

# The driver of the Ruby SDK: tests/conformance/README.md has the protocol.

require "json"
require "logger"
require_relative "../../../../sdk/ruby/colonies"
require_relative "functions"

LANGUAGE = "ruby"
LOGGER = Logger.new($stderr, progname: "ruby driver")

Values = Colonies::Values
Signing = Colonies::Signing

class UnknownCommand < StandardError; end

# Standard output: one JSON object a line, from any thread.
class Output
  def initialize
    $stdout.sync = true
    @lock = Mutex.new
  end

  def <<(message)
    line = "#{JSON.generate(message)}\n"
    @lock.synchronize { $stdout.write(line) }
  end
end

# Answers commands.
class Driver
  SERVICES = [
    Colonies::Auth::V1::AuthService, Colonies::Registry::V1::RegistryService, Colonies::Scheduler::V1::SchedulerService,
    Colonies::Cron::V1::CronService, Colonies::Cron::V1::GeneratorService
  ].to_h { |one| [one::Service.service_name, one::Service.rpc_descs] }.freeze
  # What the libraries raise of their own for what they cannot use.
  REFUSALS = [ArgumentError, Google::Protobuf::ParseError, Google::Protobuf::TypeError, KeyError, TypeError, RangeError].freeze
  COMMANDS = %w[hello identity sign_call prove_join prove_rotation encode decode connect call stream end_stream start_executor
                release stop_executor].freeze

  def initialize(output)
    @output = output
    @streams = {}
    @executors = {}
    @functions = {}
    @lock = Mutex.new
  end

  def answer(command)
    raise UnknownCommand, "there is no command #{command['do'].inspect}" unless COMMANDS.include?(command["do"])

    @output << { id: command["id"], result: send(command["do"], command) }
  rescue UnknownCommand => e
    @output << { id: command["id"], error: { code: "UNKNOWN_COMMAND", message: e.message } }
  rescue StandardError => e
    @output << { id: command["id"], error: error_of(e) }
  end

  # Ends when every executor has drained.
  def drain
    threads = @lock.synchronize { @executors.values }.map do |executor, thread|
      executor.stop
      thread
    end
    threads.each(&:join)
  end

  private

  def error_of(error)
    case error
    when Colonies::Error
      { code: error.code, reason: error.reason, message: error.message, metadata: error.metadata, fields: error.fields }
    when *REFUSALS
      { code: "REFUSED", reason: "", message: "#{error.class}: #{error.message}".scrub, metadata: {}, fields: [] }
    else
      LOGGER.error(error.full_message)
      { code: "INTERNAL", reason: "", message: "#{error.class}: #{error.message}".scrub, metadata: {}, fields: [] }
    end
  end

  def bytes(hex) = [hex].pack("H*")

  def hex(bytes) = bytes.unpack1("H*")

  def key(given) = Signing::PrivateKey.new(bytes(given.fetch("seed")))

  def only(given, *names) = names.to_h { |name| [name, given.fetch(name.to_s)] }

  def hello(_given) = { language: LANGUAGE, version: RUBY_VERSION }

  def identity(given)
    key = key(given)
    { public_key: hex(key.public_key), identity: key.identity }
  end

  def sign_call(given)
    body = bytes(given.fetch("body")) * given.fetch("body_times", 1)
    Signing.sign_call(key(given), body: body, **only(given, :method, :audience, :time_ms, :nonce)).slice(:metadata, :digest)
  end

  def prove_join(given)
    { signature: hex(Signing.prove_join(key(given), **only(given, :audience, :colony, :role, :name, :time_ms)).signature) }
  end

  def prove_rotation(given)
    { signature: hex(Signing.prove_rotation(key(given), **only(given, :audience, :colony, :old_key, :time_ms)).signature) }
  end

  def encode(given)
    value = given.key?("bytes") ? bytes(given["bytes"]) : Functions.parsed(given.fetch("json"))
    made = Values.encode(value)
    { media_type: made.media_type, data: hex(made.data) }
  end

  def decode(given)
    found = Values.decode(Values::Value.new(media_type: given.fetch("media_type"), data: bytes(given.fetch("data"))))
    return { media_type: found.media_type, bytes: hex(found.data) } if found.is_a?(Values::Value)

    given["media_type"] == Values::OCTET_STREAM ? { bytes: hex(found) } : { json: Functions.text(found) }
  end

  def connect(given)
    @connection = Colonies::Connection.new(given.fetch("address"), key: key(given), ca_file: given["ca_file"],
                                                                   **only(given, :cluster, :colony))
    {}
  end

  def connection = @connection || raise(Colonies::Refused, "not connected")

  def rpc(path)
    _, service, name = path.split("/", 3)
    SERVICES.dig(service, name.to_s.to_sym) || raise(Colonies::Refused, "there is no method #{path}")
  end

  def request(given) = rpc(given.fetch("method")).input.decode_json(JSON.generate(given.fetch("request")))

  def json_of(message) = JSON.parse(message.class.encode_json(message))

  def call(given)
    timeout = given["timeout_ms"] && given["timeout_ms"] / 1000.0
    # Made once: what comes of it is what is asked for.
    response = connection.call(given["method"], request(given), rpc(given["method"]).output, timeout: timeout, retries: false)
    { response: json_of(response) }
  end

  def stream(given)
    name = given.fetch("stream")
    stream = connection.stream(given["method"], request(given), rpc(given["method"]).output.type)
    @lock.synchronize { @streams[name] = stream }
    Thread.new { follow(name, stream) }
    {}
  end

  def follow(name, stream)
    stream.each { |message| @output << { event: "message", stream: name, message: json_of(message) } }
    @output << { event: "end", stream: name }
  rescue StandardError => e
    @output << { event: "end", stream: name, error: error_of(e) }
  end

  def end_stream(given)
    @lock.synchronize { @streams.fetch(given.fetch("stream")) }.cancel
    {}
  end

  def start_executor(given)
    name = given.fetch("executor")
    executor = Colonies::Executor.new(given.fetch("name"), types: given.fetch("types"), connection: connection, logger: LOGGER,
                                                           concurrency: given.fetch("concurrency"), labels: given.fetch("labels", {}))
    functions = Functions.new(executor) { |event, fields| @output << { event: event, executor: name, **fields } }
    executor.on_state { |state| @output << { event: "state", executor: name, state: state } }
    @lock.synchronize do
      @functions[name] = functions
      @executors[name] = [executor, Thread.new { run(name, executor) }]
    end
    {}
  end

  def run(name, executor)
    executor.run(signals: false)
    @output << { event: "stopped", executor: name }
  rescue StandardError => e
    @output << { event: "stopped", executor: name, error: error_of(e) }
  end

  def release(given)
    outputs = given["outputs"]&.map { |text| Functions.parsed(text) }
    @lock.synchronize { @functions.fetch(given.fetch("executor")) }.release(given.fetch("token"), outputs)
    {}
  end

  def stop_executor(given)
    @lock.synchronize { @executors.fetch(given.fetch("executor")) }.first.stop
    {}
  end
end

driver = Driver.new(Output.new)
trap("TERM") do
  # A handler must not take locks.
  Thread.new do
    driver.drain
    exit!(0)
  end
end
$stdin.each_line do |line|
  command = JSON.parse(line, max_nesting: Values::MAX_DEPTH)
  # Calls may wait for long; what only computes, or sets something up, keeps its order.
  command["do"] == "call" ? Thread.new { driver.answer(command) } : driver.answer(command)
end
exit!(0)
