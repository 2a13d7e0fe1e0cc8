# frozen_string_literal: true

module Colonies
  # Several outputs of one function, or none.
  Outputs = Struct.new(:values)

  # A function that an executor offers: a block that is given its Attempt and the arguments.
  class Function
    MAX_ERROR_BYTES = 8 * 1024
    SDK_FILES = "#{__dir__}/"

    Close = Scheduler::V1::Close

    attr_reader :name

    def initialize(name, description, block)
      @name = name
      @description = description
      @block = block
      # Of a block all parameters are optional; of a method that is made from it they are what they look like.
      @parameters = Module.new { define_method(:call, &block) }.instance_method(:call).parameters.drop(1)
    end

    # What goes to AnnounceFunctions.
    def to_message
      arguments = @parameters.filter_map do |kind, name|
        next unless name && %i[req opt keyreq key].include?(kind)

        Registry::V1::Argument.new(name: name.to_s, required: %i[req keyreq].include?(kind))
      end
      Registry::V1::Function.new(name: @name, description: @description, arguments: arguments)
    end

    # The end of an attempt, whatever the function does.
    def run(attempt)
      args, kwargs = arguments_of(attempt)
      result = @block.call(attempt, *args, **kwargs)
      outputs = result.is_a?(Outputs) ? result.values : [result]
      Close::Success.new(outputs: outputs.map { |each| encoded(each) })
    rescue Mismatch => e
      Function.failure(e.message)
    rescue Exception => e # rubocop:disable Lint/RescueException -- whatever a function raises is its result
      Function.failure_of(e)
    end

    def self.failure_of(error)
      trace = Array(error.backtrace).reject { |line| line.start_with?(SDK_FILES) }.join("\n")
      failure("#{error.class}: #{error.message}", trace, retryable: error.is_a?(Retryable))
    rescue StandardError
      # An exception whose text fails must not hide that there was one.
      failure("#{error.class} (its text cannot be told)", retryable: error.is_a?(Retryable))
    end

    def self.failure(*errors, retryable: false)
      Close::Failure.new(errors: errors.reject(&:empty?).map { |text| bounded(text) }, retryable: retryable)
    end

    def self.bounded(text)
      text.encode(Encoding::UTF_8, invalid: :replace, undef: :replace).scrub.byteslice(0, MAX_ERROR_BYTES).scrub("")
    end

    # The values of a call cannot be used, or do not fit the function.
    class Mismatch < StandardError; end
    private_constant :Mismatch

    private

    def arguments_of(attempt)
      given = attempt.spec.args.to_a + attempt.inputs.to_a
      args = given.each_with_index.map { |value, index| decoded(value, "argument #{index + 1}") }
      kwargs = attempt.spec.kwargs.keys.to_h { |key| [key.to_sym, decoded(attempt.spec.kwargs[key], "keyword argument #{key}")] }
      check(args.size, kwargs.keys)
      [args, kwargs]
    end

    def check(count, keywords)
      names = @parameters.group_by(&:first).transform_values { |all| all.map(&:last) }
      least = names.fetch(:req, []).size
      most = names.key?(:rest) ? nil : least + names.fetch(:opt, []).size
      takes = most ? [least, most].uniq.join(" to ") : "at least #{least}"
      raise Mismatch, "#{@name} takes #{takes} arguments, and was given #{count}" unless (least..most).cover?(count)

      missing = names.fetch(:keyreq, []) - keywords
      raise Mismatch, "#{@name} needs the keyword argument #{missing.first}" if missing.any?

      unknown = keywords - names.fetch(:keyreq, []) - names.fetch(:key, [])
      raise Mismatch, "#{@name} has no keyword argument #{unknown.first}" if unknown.any? && !names.key?(:keyrest)
    end

    def decoded(value, what)
      Values.decode(value)
    rescue Refused => e
      raise Mismatch, "#{what}: #{e.message}"
    end

    def encoded(value)
      Values.encode(value)
    rescue Refused => e
      raise Mismatch, "its result cannot be sent: #{e.message}"
    end
  end
end
