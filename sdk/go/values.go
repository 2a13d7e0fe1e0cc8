package colonies

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"colonies/build/schedulerv1"
)

const octetStream = "application/octet-stream"

// Encode turns a Go value into a Value: []byte as it is, a *Value as it is, everything else as the shortest JSON.
func Encode(value any) (*schedulerv1.Value, error) {
	switch given := value.(type) {
	case []byte:
		return &schedulerv1.Value{MediaType: octetStream, Data: given}, nil
	case *schedulerv1.Value:
		return given, nil
	case string:
		// encoding/json would put another character in its place.
		if !utf8.ValidString(given) {
			return nil, errors.New("cannot encode a string that is not UTF-8; bytes are []byte")
		}
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("cannot encode %T: %w", value, err)
	}
	return &schedulerv1.Value{Data: unescaped(bytes.TrimSuffix(text.Bytes(), []byte("\n")))}, nil
}

// EncodeAll encodes each value, in order.
func EncodeAll(values ...any) ([]*schedulerv1.Value, error) {
	encoded := make([]*schedulerv1.Value, len(values))
	for index, value := range values {
		one, err := Encode(value)
		if err != nil {
			return nil, fmt.Errorf("value %d: %w", index+1, err)
		}
		encoded[index] = one
	}
	return encoded, nil
}

var shortEscapes = map[rune]string{'\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '"': `\"`, '\\': `\\`}

// unescaped is compact JSON with only those characters escaped that must be, and these in the shortest way: what encoding/json
// escapes beyond that differs from other languages, and between its own versions.
func unescaped(text []byte) []byte {
	if !bytes.Contains(text, []byte(`\u`)) {
		return text
	}
	short := make([]byte, 0, len(text))
	for at := 0; at < len(text); {
		if text[at] != '\\' {
			short = append(short, text[at])
			at++
			continue
		}
		if text[at+1] != 'u' {
			short = append(short, text[at:at+2]...)
			at += 2
			continue
		}
		char, size := escapedRune(text[at:])
		if escape, known := shortEscapes[char]; known {
			short = append(short, escape...)
		} else if char < ' ' || utf16.IsSurrogate(char) {
			short = append(short, bytes.ToLower(text[at:at+size])...)
		} else {
			short = append(short, string(char)...)
		}
		at += size
	}
	return short
}

// escapedRune reads \uXXXX, or two of them that are one character together; half of such a pair comes as it is.
func escapedRune(text []byte) (char rune, size int) {
	unit := func(at int) rune {
		if len(text) < at+6 || text[at] != '\\' || text[at+1] != 'u' {
			return -1
		}
		number, err := strconv.ParseUint(string(text[at+2:at+6]), 16, 16)
		if err != nil {
			return -1
		}
		return rune(number)
	}
	first := unit(0)
	if pair := utf16.DecodeRune(first, unit(6)); utf16.IsSurrogate(first) && pair != utf8.RuneError {
		return pair, 12
	}
	return first, 6
}

// Decode is the Go value in a Value: []byte, or of JSON a string, bool, int64, uint64 (above that range), float64, []any,
// map[string]any or nil. Integers beyond 64 bits come as a json.Number, other media types as the Value itself.
func Decode(value *schedulerv1.Value) (any, error) {
	switch value.GetMediaType() {
	case octetStream:
		return value.Data, nil
	case "", "application/json":
	default:
		return value, nil
	}
	var decoded any
	if err := decodeJSON(value.GetData(), &decoded); err != nil {
		return nil, err
	}
	return exact(decoded)
}

// DecodeInto decodes JSON into a Go value as json.Unmarshal does, and bytes into a *[]byte.
func DecodeInto(value *schedulerv1.Value, into any) error {
	switch value.GetMediaType() {
	case octetStream:
		target, ok := into.(*[]byte)
		if !ok {
			return fmt.Errorf("bytes fit a *[]byte, not %T", into)
		}
		*target = value.Data
		return nil
	case "", "application/json":
		return decodeJSON(value.GetData(), into)
	}
	return fmt.Errorf("a value of the media type %q is no JSON", value.MediaType)
}

func decodeJSON(data []byte, into any) error {
	err := errors.New("they are not UTF-8")
	if utf8.Valid(data) {
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.UseNumber()
		if err = decoder.Decode(into); err == nil {
			if _, rest := decoder.Token(); rest == io.EOF {
				return nil
			}
			err = errors.New("something follows the value")
		}
	}
	return fmt.Errorf("cannot decode %d bytes of JSON: %w", len(data), err)
}

// exact puts the smallest kind of number that holds it exactly in the place of each one.
func exact(decoded any) (any, error) {
	var err error
	switch given := decoded.(type) {
	case json.Number:
		return exactNumber(given)
	case []any:
		for index := range given {
			if given[index], err = exact(given[index]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for key := range given {
			if given[key], err = exact(given[key]); err != nil {
				return nil, err
			}
		}
	}
	return decoded, nil
}

func exactNumber(number json.Number) (any, error) {
	text := number.String()
	if strings.ContainsAny(text, ".eE") {
		float, err := number.Float64()
		if err != nil {
			return nil, fmt.Errorf("the number %s does not fit a float64", text)
		}
		return float, nil
	}
	if integer, err := number.Int64(); err == nil {
		return integer, nil
	}
	if integer, err := strconv.ParseUint(text, 10, 64); err == nil {
		return integer, nil
	}
	return number, nil
}
