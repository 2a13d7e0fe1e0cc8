package colonies

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/quick"

	"colonies/build/schedulerv1"
)

func TestEncodeIsTheShortestJSON(t *testing.T) {
	for _, one := range []struct {
		value any
		text  string
	}{
		{nil, "null"},
		{true, "true"},
		{2.0, "2"},
		{0.1, "0.1"},
		{int64(math.MinInt64), "-9223372036854775808"},
		{uint64(math.MaxUint64), "18446744073709551615"},
		{json.Number("123456789012345678901234567890"), "123456789012345678901234567890"},
		{[]any{}, "[]"},
		{map[string]any{"b": []any{1, nil}, "a": map[string]any{}}, `{"a":{},"b":[1,null]}`},
		{struct {
			Name string `json:"name"`
		}{"x"}, `{"name":"x"}`},
		{"<a> & 'b' / é \u2028\u2029 \x7f \U0001f600", "\"<a> & 'b' / é \u2028\u2029 \x7f \U0001f600\""},
		{"\b\f\n\r\t\"\\\x00\x1f", `"\b\f\n\r\t\"\\\u0000\u001f"`},
		{`no escape: \u0041 \\u2028`, `"no escape: \\u0041 \\\\u2028"`},
		{json.RawMessage(`[ "\u0041\u00e9\ud83d\uDE00\u001F", "\ud83d\u0041", "\uD83D" ]`),
			`["Aé😀\u001f","\ud83dA","\ud83d"]`},
	} {
		got, err := Encode(one.value)
		if err != nil || string(got.GetData()) != one.text || got.MediaType != "" {
			t.Errorf("%#v: %s, %v", one.value, got.GetData(), err)
		}
	}
}

func TestEncodeTakesBytesAndValuesAsTheyAre(t *testing.T) {
	got, err := Encode([]byte{0, 255})
	if err != nil || got.MediaType != "application/octet-stream" || string(got.Data) != "\x00\xff" {
		t.Errorf("%v, %v", got, err)
	}
	given := &schedulerv1.Value{MediaType: "image/png", Data: []byte("x")}
	if got, err := Encode(given); err != nil || got != given {
		t.Errorf("%v, %v", got, err)
	}
}

func TestEncodeRefusesWhatJSONCannotCarry(t *testing.T) {
	for _, value := range []any{math.NaN(), math.Inf(1), make(chan int), "\xff"} {
		if got, err := Encode(value); err == nil {
			t.Errorf("%#v: %s", value, got.Data)
		}
	}
	if _, err := EncodeAll(1, math.NaN()); err == nil || !strings.Contains(err.Error(), "value 2") {
		t.Errorf("%v", err)
	}
}

func TestDecodeKeepsIntegersExact(t *testing.T) {
	for text, value := range map[string]any{
		"null":                   nil,
		" 1 ":                    int64(1),
		"-0":                     int64(0),
		"-9223372036854775808":   int64(math.MinInt64),
		"9007199254740993":       int64(9007199254740993),
		"18446744073709551615":   uint64(math.MaxUint64),
		"18446744073709551616":   json.Number("18446744073709551616"),
		"1.0":                    1.0,
		"1e2":                    100.0,
		`[{"a": [2]}, "\u00e9"]`: []any{map[string]any{"a": []any{int64(2)}}, "é"},
	} {
		for _, mediaType := range []string{"", "application/json"} {
			got, err := Decode(&schedulerv1.Value{MediaType: mediaType, Data: []byte(text)})
			if err != nil || !reflect.DeepEqual(got, value) {
				t.Errorf("%s: %#v, %v", text, got, err)
			}
		}
	}
}

func TestDecodeRefusesWhatIsNoJSON(t *testing.T) {
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	for _, text := range []string{"", "1 2", "nul", "NaN", "\"\xff\"", "1e999", "[1e999]", "[", deep} {
		if got, err := Decode(&schedulerv1.Value{Data: []byte(text)}); err == nil {
			t.Errorf("%.20q: %v", text, got)
		}
	}
}

func TestDecodeLeavesOtherMediaTypes(t *testing.T) {
	given := &schedulerv1.Value{MediaType: "text/plain", Data: []byte("x")}
	if got, err := Decode(given); err != nil || got != any(given) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := Decode(&schedulerv1.Value{MediaType: octetStream, Data: []byte("x")}); err != nil ||
		!reflect.DeepEqual(got, []byte("x")) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDecodeInto(t *testing.T) {
	var point struct{ X, Y float64 }
	if err := DecodeInto(&schedulerv1.Value{Data: []byte(`{"x":1,"y":2.5}`)}, &point); err != nil || point.Y != 2.5 {
		t.Errorf("%v, %v", point, err)
	}
	var number int
	if err := DecodeInto(&schedulerv1.Value{Data: []byte(`1.5`)}, &number); err == nil {
		t.Errorf("1.5 became %d", number)
	}
	var raw []byte
	bytes := &schedulerv1.Value{MediaType: octetStream, Data: []byte("x")}
	if err := DecodeInto(bytes, &raw); err != nil || string(raw) != "x" {
		t.Errorf("%q, %v", raw, err)
	}
	for _, refused := range []*schedulerv1.Value{bytes, {MediaType: "text/plain"}} {
		if err := DecodeInto(refused, &number); err == nil {
			t.Errorf("%v became %d", refused, number)
		}
	}
}

func TestWhatIsEncodedIsDecodedAsItWas(t *testing.T) {
	if err := quick.Check(func(text string, number int64, float float64, parts []string) bool {
		list := []any{}
		for _, part := range parts {
			list = append(list, part)
		}
		// A whole float is a whole number in JSON.
		given := map[string]any{text: number, "float": float + 0.5, "list": list}
		encoded, err := Encode(given)
		if err != nil {
			return false
		}
		var back, again any
		if back, err = Decode(encoded); err != nil {
			return false
		}
		if err := json.Unmarshal(encoded.Data, &again); err != nil {
			return false
		}
		more, err := Encode(back)
		return err == nil && string(more.Data) == string(encoded.Data)
	}, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}
