# frozen_string_literal: true

require "json"

module Colonies
  # User data on its way to and from the wire: binary strings (ASCII-8BIT) as they are, everything else as JSON.
  module Values
    OCTET_STREAM = "application/octet-stream"
    JSON_TYPES = ["", "application/json"].freeze
    MAX_DEPTH = 500
    SHORT = { "\"" => '\\"', "\\" => "\\\\", "\b" => '\\b', "\f" => '\\f', "\n" => '\\n', "\r" => '\\r', "\t" => '\\t' }.freeze
    ESCAPES = Hash.new { |_, char| format('\\u%04x', char.ord) }.update(SHORT).freeze
    STRINGS = /"(?:[^"\\]|\\.)*"/m.freeze
    ESCAPE = %r{\A\\(?:["\\/bfnrt]|u\h{4})\z}.freeze

    Value = Scheduler::V1::Value

    module_function

    # Raises Refused when JSON cannot carry the value.
    def encode(value)
      return value if value.is_a?(Value)
      return Value.new(media_type: OCTET_STREAM, data: value) if value.is_a?(String) && value.encoding == Encoding::BINARY

      Value.new(data: json_of(value, 0).b)
    end

    # Media types other than JSON and octet-stream come back as the Value itself. Raises Refused when the bytes are not JSON.
    def decode(value)
      return value.data if value.media_type == OCTET_STREAM
      return value unless JSON_TYPES.include?(value.media_type)

      text = value.data.dup.force_encoding(Encoding::UTF_8)
      raise Refused, "cannot decode #{text.bytesize} bytes of JSON: they are not UTF-8" unless text.valid_encoding?
      # The parser takes any letter behind a backslash, and comments; JSON has neither.
      raise Refused, "cannot decode #{text.bytesize} bytes of JSON: an escape that is none" if odd_escape?(text)
      raise Refused, "cannot decode #{text.bytesize} bytes of JSON: unexpected '/'" if text.include?("/") && text.gsub(STRINGS, "").include?("/")

      JSON.parse(text, max_nesting: MAX_DEPTH)
    rescue JSON::ParserError => e
      raise Refused, "cannot decode #{value.data.bytesize} bytes of JSON: #{e.message.scrub[0, 200]}"
    end

    def odd_escape?(text)
      text.include?("\\") && !text.scan(/\\(?:u\h{4}|.)/m).all? { |escape| ESCAPE.match?(escape) }
    end

    # The shortest text. JSON.generate escapes more than it must, and makes a string of what it does not know.
    def json_of(value, depth)
      raise Refused, "cannot encode a value that is nested this deeply" if depth > MAX_DEPTH

      case value
      when nil, true, false, Integer then value.nil? ? "null" : value.to_s
      when Float then number(value)
      when String, Symbol then quoted(value.to_s)
      when Array then "[#{value.map { |each| json_of(each, depth + 1) }.join(',')}]"
      when Hash then "{#{value.map { |key, each| "#{key_of(key)}:#{json_of(each, depth + 1)}" }.join(',')}}"
      else raise Refused, "cannot encode #{value.class}"
      end
    end

    def key_of(key)
      raise Refused, "cannot encode #{key.class} as a key" unless key.is_a?(String) || key.is_a?(Symbol)

      quoted(key.to_s)
    end

    def number(float)
      raise Refused, "cannot encode #{float}: JSON has no such number" unless float.finite?

      float.to_s.sub(".0e", "e")
    end

    def quoted(string)
      text = string.encode(Encoding::UTF_8)
      raise Refused, "cannot encode a text that is not valid #{string.encoding}" unless text.valid_encoding?

      %("#{text.gsub(/["\\\u0000-\u001f]/, ESCAPES)}")
    rescue EncodingError
      raise Refused, "cannot encode a text that is not valid #{string.encoding}"
    end

    private_class_method :odd_escape?, :json_of, :key_of, :number, :quoted
  end
end
