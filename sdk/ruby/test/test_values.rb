# frozen_string_literal: true

require "minitest/autorun"
require_relative "../colonies"

class TestValues < Minitest::Test
  Values = Colonies::Values
  Value = Values::Value

  def json(value) = Values.encode(value).data.dup.force_encoding("UTF-8")

  def decoded(data, media_type = "") = Values.decode(Value.new(media_type: media_type, data: data.b))

  def test_the_shortest_json
    assert_equal '{"a":[1,2.5,null,true,false],"b":{}}', json({ "a" => [1, 2.5, nil, true, false], b: {} })
    assert_equal '"é\u2028/\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f"'.sub('\u2028', "\u2028"), json("é\u2028/\"\\\b\f\n\r\t\u0001\u001f")
    assert_equal "\"\u007f\"", json("\u007f")
    assert_equal %w[1.0 1e+100 1e-07 0.1 -0.0], [1.0, 1e100, 1e-7, 0.1, -0.0].map { |each| json(each) }
  end

  def test_integers_of_any_size_stay_exact
    [2**63 - 1, -2**63, 10**40].each { |number| assert_equal number, decoded(json(number)) }
  end

  def test_bytes_are_themselves
    value = Values.encode("\x00\xff".b)
    assert_equal ["application/octet-stream", "\x00\xff".b], [value.media_type, value.data]
    assert_equal "\x00\xff".b, Values.decode(value)
  end

  def test_other_media_types_come_back_as_they_are
    value = Value.new(media_type: "image/png", data: "x")
    assert_same value, Values.decode(value)
    assert_same value, Values.encode(value)
  end

  def test_what_json_cannot_carry_is_refused
    loop_ = []
    loop_ << loop_
    [Float::NAN, Float::INFINITY, Object.new, { 1 => 2 }, "\xff", loop_, 1..2].each do |value|
      assert_raises(Colonies::Refused, value.class) { Values.encode(value) }
    end
  end

  def test_what_is_not_json_is_refused
    ["", "01", "NaN", "-Infinity", "[1,]", "/* a */ 1", "1 // a", "\"\xff\"", "'a'", "{", "[" * 100_000].each do |text|
      assert_raises(Colonies::Refused, text[0, 20]) { decoded(text) }
    end
    assert_equal "a/*\"/", decoded('"a/*\"/"')
    assert_equal [1], decoded(" [ 1 ]\n")
  end
end
