# frozen_string_literal: true

module Colonies
  # What this library refuses before any call is made: a value, a setting or a key that cannot be used.
  class Refused < ArgumentError; end

  # Raise this in a function of an executor when trying again may help: the process goes back to the queue.
  class Retryable < StandardError; end

  # A call failed.
  class Error < StandardError
    DETAILS = "grpc-status-details-bin"
    CODES = GRPC::Core::StatusCodes.constants.to_h { |name| [GRPC::Core::StatusCodes.const_get(name), name.to_s] }.freeze
    # No Colonies service says CANCELLED or UNKNOWN: a proxy or a dying server has reset the call.
    OUTAGES = %w[UNAVAILABLE DEADLINE_EXCEEDED CANCELLED UNKNOWN].freeze

    # The gRPC status by name; a constant for programs, such as ATTEMPT_SUPERSEDED, and what goes with it; the fields of a
    # bad request, each with :field and :description; seconds to wait before the next try, if the server said so.
    attr_reader :code, :reason, :metadata, :fields, :retry_delay

    def initialize(message, code:, reason: "", metadata: {}, fields: [], retry_delay: nil)
      super(message)
      @code = code
      @reason = reason
      @metadata = metadata
      @fields = fields
      @retry_delay = retry_delay
    end

    # The error of a failed call, with the details that the service sent.
    def self.of(status)
      code = CODES.fetch(status.code, "UNKNOWN")
      new(status.details.to_s.empty? ? code : status.details, code: code, **details_of(status.metadata[DETAILS]))
    end

    def self.details_of(bytes)
      v1 = Status::V1
      v1::Status.decode(bytes.to_s).details.each_with_object({}) do |any, found|
        case any.type_url
        when "type.googleapis.com/google.rpc.ErrorInfo"
          info = v1::ErrorInfo.decode(any.value)
          found.update(reason: info.reason, metadata: info.metadata.to_h)
        when "type.googleapis.com/google.rpc.BadRequest"
          violations = v1::BadRequest.decode(any.value).field_violations
          found[:fields] = violations.map { |one| { field: one.field, description: one.description } }
        when "type.googleapis.com/google.rpc.RetryInfo"
          delay = v1::RetryInfo.decode(any.value).retry_delay
          found[:retry_delay] = delay.seconds + delay.nanos / 1e9 if delay
        end
      end
    rescue Google::Protobuf::ParseError
      {} # details that are not ours add nothing; code and message still say what happened
    end
    private_class_method :details_of

    # Whether the server was out of reach; else it has refused.
    def outage?
      # A reset of the HTTP/2 stream is reported as INTERNAL, and only its text tells it from a real fault.
      OUTAGES.include?(code) || (code == "INTERNAL" && message.include?("RST_STREAM"))
    end

    # Whether it is the approval of an executor that is missing, be it for a moment or for good.
    def about_approval?
      code == "PERMISSION_DENIED" || reason == "EXECUTOR_NOT_APPROVED"
    end

    # Whether the same call may get through later: an outage, or too many calls a second.
    def passes?
      outage? || (code == "RESOURCE_EXHAUSTED" && %w[RATE_LIMITED TOO_MANY_STREAMS].include?(reason))
    end
  end
end
