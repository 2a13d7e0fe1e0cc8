package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"colonies"
	"colonies/build/schedulerv1"
)

// executor is one that runs, and the functions of it that hold.
type executor struct {
	*driver
	name string
	stop context.CancelFunc

	mu      sync.Mutex
	holding map[string]chan colonies.Outputs
}

func (d *driver) startExecutor(given command) error {
	d.mu.Lock()
	settings, key, connected := d.settings, d.key, d.client != nil
	d.mu.Unlock()
	if !connected {
		return errNotConnected
	}
	// Of its own, for connect may replace the driver's.
	client, err := colonies.Dial(settings, key)
	if err != nil {
		return err
	}
	made := colonies.NewExecutor(client, given.Name, given.Types...)
	made.Concurrency = given.Concurrency
	for label, value := range given.Labels {
		made.Capabilities.Labels[label] = value
	}
	ctx, stop := context.WithCancel(context.Background())
	one := &executor{driver: d, name: given.Executor, stop: stop, holding: map[string]chan colonies.Outputs{}}
	one.offer(made)
	made.OnState = func(state colonies.State) { one.tell("state", object{"state": state}) }
	made.OnDrop = func(call *colonies.Call, reason schedulerv1.DropReason) {
		one.tellOf(call, "dropped", object{"reason": strings.TrimPrefix(reason.String(), "DROP_REASON_")})
	}
	d.mu.Lock()
	d.executors[given.Executor] = one
	d.mu.Unlock()
	go func() {
		err := made.Run(ctx)
		if closed := client.Close(); err == nil {
			err = closed
		}
		if err != nil {
			one.tell("stopped", object{"error": errorObject(err)})
		} else {
			one.tell("stopped", object{})
		}
	}()
	return nil
}

func (d *driver) executor(name string) (*executor, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	one, known := d.executors[name]
	if !known {
		return nil, fmt.Errorf("there is no executor %q", name)
	}
	return one, nil
}

func (d *driver) stopExecutor(given command) error {
	one, err := d.executor(given.Executor)
	if err == nil {
		one.stop()
	}
	return err
}

func (d *driver) release(given command) error {
	one, err := d.executor(given.Executor)
	if err != nil {
		return err
	}
	var outputs colonies.Outputs
	for _, text := range given.Outputs {
		output, err := fromJSON(text)
		if err != nil {
			return err
		}
		outputs = append(outputs, output)
	}
	if given.Outputs != nil && outputs == nil {
		outputs = colonies.Outputs{}
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	released, known := one.holding[given.Token]
	if !known {
		return fmt.Errorf("no function holds %q", given.Token)
	}
	delete(one.holding, given.Token)
	released <- outputs
	return nil
}

func (e *executor) tell(event string, with object) {
	with["event"], with["executor"] = event, e.name
	e.write(with)
}

func (e *executor) tellOf(call *colonies.Call, event string, with object) {
	with["process_id"], with["attempt"] = call.ProcessId, call.Attempt
	e.tell(event, with)
}

func (e *executor) offer(made *colonies.Executor) {
	made.Function("echo", echo)
	made.Function("add", add)
	made.Function("fail", func(_ context.Context, call *colonies.Call) (colonies.Outputs, error) {
		return nil, errors.New(first(call))
	})
	made.Function("fail_retryable", func(_ context.Context, call *colonies.Call) (colonies.Outputs, error) {
		return nil, colonies.Retryable(errors.New(first(call)))
	})
	made.Function("crash", func(_ context.Context, call *colonies.Call) (colonies.Outputs, error) {
		panic(first(call))
	})
	made.Function("nothing", func(context.Context, *colonies.Call) (colonies.Outputs, error) {
		return nil, nil
	})
	made.Function("hold", e.hold)
	made.Function("effect", func(_ context.Context, call *colonies.Call) (colonies.Outputs, error) {
		e.tellOf(call, "effect", object{"text": first(call)})
		return further(call), nil
	})
}

func (e *executor) hold(ctx context.Context, call *colonies.Call) (colonies.Outputs, error) {
	args := []string{}
	for _, given := range call.Args {
		text, err := toJSON(given)
		if err != nil {
			return nil, err
		}
		args = append(args, text)
	}
	token, name := make(chan colonies.Outputs, 1), first(call)
	e.mu.Lock()
	e.holding[name] = token
	e.mu.Unlock()
	e.tellOf(call, "started", object{"function": call.Spec.FuncName, "token": name, "args": args})
	select {
	case outputs := <-token:
		if outputs == nil {
			outputs = further(call)
		}
		return outputs, nil
	case <-ctx.Done():
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.holding[name] == token {
			delete(e.holding, name)
		}
		return nil, ctx.Err()
	}
}

func echo(_ context.Context, call *colonies.Call) (colonies.Outputs, error) {
	outputs := colonies.Outputs(call.Args)
	if len(call.Kwargs) > 0 {
		outputs = append(outputs, call.Kwargs)
	}
	return outputs, nil
}

func add(_ context.Context, call *colonies.Call) (colonies.Outputs, error) {
	var whole int64
	var fraction float64
	isWhole := true
	for index, given := range call.Args {
		switch number := given.(type) {
		case int64:
			if sum := whole + number; (sum > whole) == (number > 0) {
				whole = sum
			} else {
				return nil, errors.New("the sum does not fit 64 bits")
			}
			fraction += float64(number)
		case float64:
			isWhole = false
			fraction += number
		default:
			return nil, fmt.Errorf("argument %d is %T, and no number that can be added", index+1, given)
		}
	}
	if isWhole {
		return colonies.Outputs{whole}, nil
	}
	return colonies.Outputs{fraction}, nil
}

// first is the first argument as a text.
func first(call *colonies.Call) string {
	if len(call.Args) == 0 {
		return ""
	}
	if text, ok := call.Args[0].(string); ok {
		return text
	}
	return fmt.Sprint(call.Args[0])
}

func further(call *colonies.Call) colonies.Outputs {
	if len(call.Args) == 0 {
		return nil
	}
	return call.Args[1:]
}
