# frozen_string_literal: true

require "minitest/autorun"
require_relative "../colonies"

class TestFunction < Minitest::Test
  V1 = Colonies::Scheduler::V1

  def attempt(args: [], inputs: [], kwargs: {})
    spec = V1::FunctionSpec.new(func_name: "f", args: args.map { |each| Colonies::Values.encode(each) })
    kwargs.each { |name, value| spec.kwargs[name.to_s] = Colonies::Values.encode(value) }
    inputs = inputs.map { |each| Colonies::Values.encode(each) }
    Colonies::Attempt.new(V1::Assignment.new(process_id: "p", attempt: 1, spec: spec, inputs: inputs), nil)
  end

  def run_it(block, **given) = Colonies::Function.new("f", "", block).run(attempt(**given))

  def outputs(block, **given) = run_it(block, **given).outputs.map { |each| Colonies::Values.decode(each) }

  def test_arguments_then_inputs_then_keywords
    block = proc { |_attempt, *args, **kwargs| [args, kwargs] }
    assert_equal [[[1, "b", nil], { "k" => 2 }]], outputs(block, args: [1, "b"], inputs: [nil], kwargs: { k: 2 })
  end

  def test_one_output_several_and_none
    assert_equal [[1, 2]], outputs(proc { [1, 2] })
    assert_equal [1, 2], outputs(proc { |attempt| attempt.outputs(1, 2) })
    assert_equal [], outputs(proc { |attempt| attempt.outputs })
    assert_equal [nil], outputs(proc {})
  end

  def test_a_call_that_does_not_fit_says_how
    two = proc { |_attempt, a, b = 1, c:, d: 2| [a, b, c, d] }
    assert_equal [[1, 1, 3, 2]], outputs(two, args: [1], kwargs: { c: 3 })
    {
      { kwargs: { c: 1 } } => "f takes 1 to 2 arguments, and was given 0",
      { args: [1, 2, 3], kwargs: { c: 1 } } => "f takes 1 to 2 arguments, and was given 3",
      { args: [1] } => "f needs the keyword argument c",
      { args: [1], kwargs: { c: 1, e: 1 } } => "f has no keyword argument e"
    }.each do |given, message|
      failure = run_it(two, **given)
      assert_equal [[message], false], [failure.errors.to_a, failure.retryable]
    end
  end

  def test_an_exception_whose_text_fails_is_a_failure_too
    mute = Class.new(Colonies::Retryable) { def message = raise("no text") }
    failure = run_it(proc { raise mute })
    assert_match(/its text cannot be told/, failure.errors.first)
    assert failure.retryable
  end

  def test_whatever_is_raised_is_a_failure
    failure = run_it(proc { raise "bad" })
    assert_equal "RuntimeError: bad", failure.errors.first
    assert_match(/test_function.rb/, failure.errors.last)
    refute failure.retryable
    assert run_it(proc { raise Colonies::Retryable, "again" }).retryable
    assert_equal "NotImplementedError: no", run_it(proc { raise NotImplementedError, "no" }).errors.first
    assert_equal "SystemExit: exit", run_it(proc { exit }).errors.first
  end

  def test_errors_are_bounded_and_text
    failure = run_it(proc { raise "é" * 10_000 })
    assert failure.errors.first.bytesize.between?(8 * 1024 - 4, 8 * 1024)
    assert_equal "RuntimeError: \u{fffd}", run_it(proc { raise "\xff".b }).errors.first
  end

  def test_a_result_that_cannot_be_sent_is_a_failure
    assert_match(/its result cannot be sent: .*Object/, run_it(proc { Object.new }).errors.first)
  end

  def test_parameters_are_announced
    block = proc { |_attempt, a, b = 1, *rest, c:, d: 2, **others| [a, b, rest, c, d, others] }
    found = Colonies::Function.new("f", "does", block).to_message
    assert_equal [["a", true], ["b", false], ["c", true], ["d", false]], found.arguments.map { |each| [each.name, each.required] }
    assert_equal %w[f does], [found.name, found.description]
  end
end
