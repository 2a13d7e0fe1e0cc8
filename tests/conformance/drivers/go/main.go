// The driver of the Go SDK: does what it is told on its standard input (tests/conformance/README.md).
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"unicode"

	"google.golang.org/grpc/codes"

	"colonies"
)

// object is a JSON object that is written.
type object map[string]any

// command is what is read: each kind has some of these.
type command struct {
	ID        int64    `json:"id"`
	Do        string   `json:"do"`
	Seed      string   `json:"seed"`
	Method    string   `json:"method"`
	Audience  string   `json:"audience"`
	Body      string   `json:"body"`
	BodyTimes *int     `json:"body_times"`
	TimeMs    int64    `json:"time_ms"`
	Nonce     string   `json:"nonce"`
	Colony    string   `json:"colony"`
	Role      string   `json:"role"`
	Name      string   `json:"name"`
	OldKey    string   `json:"old_key"`
	JSON      *string  `json:"json"`
	Bytes     *string  `json:"bytes"`
	MediaType string   `json:"media_type"`
	Data      string   `json:"data"`
	Address   string   `json:"address"`
	Cluster   string   `json:"cluster"`
	CAFile    string   `json:"ca_file"`
	TimeoutMs int64    `json:"timeout_ms"`
	Stream    string   `json:"stream"`
	Executor  string   `json:"executor"`
	Types     []string `json:"types"`
	Token     string   `json:"token"`
	Outputs   []string `json:"outputs"`

	Concurrency int               `json:"concurrency"`
	Labels      map[string]string `json:"labels"`
	Request     json.RawMessage   `json:"request"`
}

// driver is the state between commands.
type driver struct {
	output sync.Mutex

	mu        sync.Mutex
	settings  colonies.Settings
	key       colonies.PrivateKey
	client    *colonies.Client
	streams   map[string]stream
	executors map[string]*executor
}

var errUnknown = errors.New("this driver does not know that command")

func main() {
	d := &driver{streams: map[string]stream{}, executors: map[string]*executor{}}
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			d.obey(line)
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func (d *driver) obey(line []byte) {
	var given command
	if err := json.Unmarshal(line, &given); err != nil {
		d.answer(given.ID, nil, err)
		return
	}
	if given.Do == "call" {
		// The only one that others may overtake.
		go func() {
			result, err := d.call(given)
			d.answer(given.ID, result, err)
		}()
		return
	}
	result, err := d.do(given)
	d.answer(given.ID, result, err)
	if given.Do == "stream" && err == nil {
		// Its events follow the answer.
		d.mu.Lock()
		begun := d.streams[given.Stream]
		d.mu.Unlock()
		go d.read(given, begun)
	}
}

func (d *driver) do(given command) (object, error) {
	switch given.Do {
	case "hello":
		return hello(), nil
	case "identity", "sign_call", "prove_join", "prove_rotation":
		return sign(given)
	case "encode":
		return encode(given)
	case "decode":
		return decode(given)
	case "connect":
		return object{}, d.connect(given)
	case "stream":
		return object{}, d.stream(given)
	case "end_stream":
		return object{}, d.endStream(given)
	case "start_executor":
		return object{}, d.startExecutor(given)
	case "release":
		return object{}, d.release(given)
	case "stop_executor":
		return object{}, d.stopExecutor(given)
	}
	return nil, fmt.Errorf("%w: %q", errUnknown, given.Do)
}

func (d *driver) answer(id int64, result object, err error) {
	if err != nil {
		d.write(object{"id": id, "error": errorObject(err)})
		return
	}
	d.write(object{"id": id, "result": result})
}

func (d *driver) write(one object) {
	d.output.Lock()
	defer d.output.Unlock()
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(one); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func errorObject(err error) object {
	told := object{"code": "REFUSED", "reason": "", "message": err.Error(), "metadata": object{}, "fields": []object{}}
	var failure *colonies.Error
	if errors.Is(err, errUnknown) {
		told["code"] = "UNKNOWN_COMMAND"
	} else if errors.As(err, &failure) {
		fields := []object{}
		for _, one := range failure.Fields {
			fields = append(fields, object{"field": one.Field, "description": one.Description})
		}
		told["code"], told["reason"], told["message"] = codeName(failure.Code), failure.Reason, failure.Message
		told["fields"] = fields
		if failure.Metadata != nil {
			told["metadata"] = failure.Metadata
		}
	}
	return told
}

// codeName is FAILED_PRECONDITION for what gRPC for Go calls FailedPrecondition.
func codeName(code codes.Code) string {
	switch code {
	case codes.OK:
		return "OK"
	case codes.Canceled:
		return "CANCELLED"
	}
	var name []rune
	for index, letter := range code.String() {
		if index > 0 && unicode.IsUpper(letter) {
			name = append(name, '_')
		}
		name = append(name, unicode.ToUpper(letter))
	}
	return string(name)
}

func keyOf(seed string) (colonies.PrivateKey, error) {
	raw, err := hex.DecodeString(seed)
	if err != nil {
		return colonies.PrivateKey{}, err
	}
	return colonies.KeyFromSeed(raw)
}
