# frozen_string_literal: true

require "minitest/autorun"
require_relative "../colonies"

# A server that answers as it is told, and keeps what it was sent.
class ScriptedAuth < Colonies::Auth::V1::AuthService::Service
  attr_reader :nonces

  def initialize(*answers)
    super()
    @answers = answers
    @nonces = []
  end

  def get_colony(_request, call)
    @nonces << call.metadata["colonies-nonce"]
    answer = @answers.shift
    raise answer if answer

    Colonies::Auth::V1::GetColonyResponse.new
  end
end

class TestConnection < Minitest::Test
  S = Colonies::Status::V1
  PREFIX = "0123456789abcdef"

  def refusal(code, reason, metadata = {}, *details)
    info = S::ErrorInfo.new(reason: reason, domain: "colonies", metadata: metadata)
    packed = [["ErrorInfo", info], *details].map do |name, message|
      Google::Protobuf::Any.new(type_url: "type.googleapis.com/google.rpc.#{name}", value: message.class.encode(message))
    end
    status = S::Status.new(code: code, message: "no", details: packed)
    GRPC::BadStatus.new_status_exception(code, "no", { "grpc-status-details-bin" => S::Status.encode(status) })
  end

  def asking(prefix) = refusal(16, "NONCE_PREFIX_REQUIRED", { "nonce_prefix" => prefix })

  def connected(*answers)
    server = GRPC::RpcServer.new(poll_period: 0.1)
    port = server.add_http2_port("127.0.0.1:0", :this_port_is_insecure)
    service = ScriptedAuth.new(*answers)
    server.handle(service)
    thread = Thread.new { server.run }
    server.wait_till_running
    key = Colonies::Signing::PrivateKey.new("k" * 32)
    yield Colonies::Connection.new("127.0.0.1:#{port}", cluster: "c", colony: "dev", key: key), service
  ensure
    server&.stop
    thread&.join
  end

  def ask(connection, **options)
    connection.auth.get_colony(Colonies::Auth::V1::GetColonyRequest.new(colony_name: "dev"), **options)
  end

  def test_a_nonce_gets_the_prefix_that_is_asked_for_and_keeps_it
    connected(asking(PREFIX)) do |connection, service|
      2.times { ask(connection) }
      assert_equal [false, true, true], service.nonces.map { |nonce| nonce.start_with?(PREFIX) }
      assert_equal [[32], 3], [service.nonces.map(&:size).uniq, service.nonces.uniq.size]
    end
  end

  def test_a_prefix_of_another_form_is_not_taken
    ["", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0", "0123456789abcdef\n"].each do |prefix|
      connected(asking(prefix)) do |connection, service|
        assert_equal "NONCE_PREFIX_REQUIRED", assert_raises(Colonies::Error) { ask(connection) }.reason
        assert_equal 1, service.nonces.size
      end
    end
  end

  def test_it_gives_up_when_prefixes_do_not_end
    connected(*Array.new(10) { asking(PREFIX) }) do |connection, service|
      assert_raises(Colonies::Error) { ask(connection) }
      assert_equal 4, service.nonces.size
    end
  end

  def test_an_error_has_all_that_the_service_said
    violation = S::BadRequest::FieldViolation.new(field: "name", description: "too long")
    retry_info = S::RetryInfo.new(retry_delay: Google::Protobuf::Duration.new(seconds: 2, nanos: 500_000_000))
    answer = refusal(3, "INVALID_FIELD", { "a" => "b" }, ["BadRequest", S::BadRequest.new(field_violations: [violation])],
                     ["RetryInfo", retry_info])
    connected(answer) do |connection, _|
      error = assert_raises(Colonies::Error) { ask(connection) }
      assert_equal ["INVALID_ARGUMENT", "INVALID_FIELD", { "a" => "b" }, [{ field: "name", description: "too long" }], 2.5],
                   [error.code, error.reason, error.metadata, error.fields, error.retry_delay]
    end
  end

  def test_details_that_are_none_do_no_harm
    connected(GRPC::BadStatus.new_status_exception(5, "gone", { "grpc-status-details-bin" => "\xff\xff" })) do |connection, _|
      error = assert_raises(Colonies::Error) { ask(connection) }
      assert_equal ["NOT_FOUND", "", "gone"], [error.code, error.reason, error.message]
    end
  end

  def test_an_outage_is_ridden_out_and_a_refusal_is_not
    outage = refusal(14, "OUT_OF_REACH")
    connected(outage, outage) do |connection, service|
      assert ask(connection)
      assert_equal 3, service.nonces.uniq.size
    end
    connected(outage, outage) do |connection, _|
      assert_raises(Colonies::Error) { ask(connection, retries: false) }
    end
    connected(refusal(5, "GONE"), nil) do |connection, service|
      assert_raises(Colonies::Error) { ask(connection) }
      assert_equal 1, service.nonces.size
    end
  end

  def test_a_server_that_stays_away_is_an_error_when_the_time_is_over
    key = Colonies::Signing::PrivateKey.new("k" * 32)
    connection = Colonies::Connection.new("127.0.0.1:1", cluster: "c", colony: "dev", key: key)
    error = assert_raises(Colonies::Error) { ask(connection, timeout: 0.3) }
    assert error.outage?
  end
end
