# frozen_string_literal: true

require "minitest/autorun"
require_relative "../colonies"

class TestHand < Minitest::Test
  V1 = Colonies::Scheduler::V1

  def setup
    @began = Queue.new
    @hand = Colonies::Hand.new(2) { |attempt, over| @began << [attempt, over] }
  end

  def attempt(process_id, number = 1, lease_ms: 0)
    Colonies::Attempt.new(V1::Assignment.new(process_id: process_id, attempt: number, lease_ms: lease_ms), nil)
  end

  def began = @began.pop


  def test_no_more_run_at_once_than_were_asked_for
    @hand.take([attempt("a"), attempt("b"), attempt("c")])
    (first, over), (second,) = [began, began].sort_by { |one, _| one.process_id }
    assert_equal %w[a b], [first.process_id, second.process_id]
    assert @began.empty?
    over.call
    assert_equal "c", began.first.process_id
  end

  def test_what_was_given_back_before_there_was_a_place_is_not_run
    @hand.take([attempt("a"), attempt("b"), attempt("c")])
    _, over = began
    began
    assert @hand.finish(@hand.to_a.last)
    over.call
    @hand.take([attempt("d")])
    assert_equal "d", began.first.process_id
  end

  def test_the_same_attempt_is_not_run_again
    one = attempt("a")
    @hand.take([one])
    began.last.call
    assert_empty @hand.take([attempt("a")])
    @hand.release(one)
    assert_empty @hand.take([attempt("a")])
    assert_empty @hand.to_a
    assert @began.empty?
  end

  def test_a_later_attempt_takes_the_place_of_an_earlier_one
    one = attempt("a")
    two = attempt("a", 2)
    @hand.take([one])
    assert_equal [one], @hand.take([two])
    assert_equal [two], @hand.to_a
    # What is left of the first changes nothing.
    @hand.release(one)
    assert_equal [two], @hand.to_a
    assert_nil @hand.find(V1::AttemptRef.new(process_id: "a", attempt: 1))
    assert_same two, @hand.find(V1::AttemptRef.new(process_id: "a", attempt: 2))
  end

  def test_what_was_dropped_while_it_waited_never_begins
    waiting = attempt("c")
    @hand.take([attempt("a"), attempt("b"), waiting, attempt("d")])
    over = [began, began].map(&:last)
    waiting.drop("CANCELLED")
    over.each(&:call)
    assert_equal "d", began.first.process_id
    assert @began.empty?
  end

  def test_one_alone_ends_an_attempt
    one = attempt("a")
    @hand.take([one])
    assert_equal 1, Array.new(8) { Thread.new { @hand.finish(one) } }.map(&:value).count(true)
    two = attempt("b")
    two.drop("CANCELLED")
    refute @hand.finish(two)
  end

  def test_three_heartbeats_fit_in_a_lease
    @hand.take([attempt("a", lease_ms: 15_000)])
    assert_in_delta 5.0, @hand.beat_seconds
  end

  def test_waiting_until_nothing_is_in_hand
    one = attempt("a")
    @hand.take([one])
    refute @hand.wait_empty(0.01)
    waiter = Thread.new { @hand.wait_empty(60) }
    @hand.release(one)
    assert waiter.value
  end

  def test_a_dropped_attempt_tells_all_who_wait
    one = attempt("a")
    waiter = Thread.new { one.wait(60) }
    told = []
    one.on_drop { told << :before }
    assert one.drop("CANCELLED")
    refute one.drop("SUPERSEDED")
    one.on_drop { told << :after }
    assert waiter.value
    assert_equal [%i[before after], "CANCELLED"], [told, one.drop_reason]
  end
end
