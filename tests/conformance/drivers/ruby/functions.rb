# frozen_string_literal: true

# The functions of a driver's executor, written as the SDK's users write them.
class Functions
  # A value of Ruby's own for a JSON text, and the text for one.
  def self.parsed(text) = Colonies::Values.decode(Colonies::Values::Value.new(data: text.b))

  def self.text(value) = Colonies::Values.encode(value).data.dup.force_encoding(Encoding::UTF_8)

  # The block is given each event and its fields.
  def initialize(executor, &tell)
    @tell = tell
    @lock = Mutex.new
    @holding = Hash.new { |holding, token| holding[token] = [] }
    plain(executor)
    failing(executor)
    telling(executor)
    executor.on_drop { |attempt| tell.call("dropped", { **named(attempt), reason: attempt.drop_reason }) }
  end

  # Lets the functions that hold this token return: the given outputs, or those of their own if it is nil.
  def release(token, outputs)
    queues = @lock.synchronize { @holding.delete(token) }
    raise Colonies::Refused, "no function holds the token #{token}" if queues.nil?

    queues.each { |queue| queue << [outputs] }
  end

  private

  def named(attempt) = { process_id: attempt.process_id, attempt: attempt.number }

  def plain(executor)
    executor.function("echo") { |attempt, *args, **kwargs| attempt.outputs(*args, *(kwargs.empty? ? [] : [kwargs])) }
    executor.function("add") { |_attempt, *numbers| numbers.sum }
    executor.function("nothing") { |attempt, *_args| attempt.outputs }
  end

  def failing(executor)
    executor.function("fail") { |_attempt, text, *_rest| raise StandardError, text }
    executor.function("fail_retryable") { |_attempt, text, *_rest| raise Colonies::Retryable, text }
    executor.function("crash") { |_attempt, text, *_rest| raise ScriptError, text }
  end

  def telling(executor)
    executor.function("effect") do |attempt, text, *rest|
      @tell.call("effect", { **named(attempt), text: text })
      attempt.outputs(*rest)
    end
    executor.function("hold") do |attempt, token, *rest|
      queue = Queue.new
      @lock.synchronize { @holding[token] << queue }
      attempt.on_drop { queue << [nil] }
      texts = [token, *rest].map { |each| Functions.text(each) }
      @tell.call("started", { **named(attempt), function: "hold", token: token, args: texts })
      attempt.outputs(*(queue.pop.first || rest))
    end
  end
end
