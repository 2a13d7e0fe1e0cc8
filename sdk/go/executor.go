package colonies

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"colonies/build/registryv1"
	"colonies/build/schedulerv1"
)

// Outputs are what a function returns: as many as it likes, each as Encode takes it.
type Outputs []any

// Func is a function that an executor offers. An error fails the process, for good unless it is Retryable. The context ends when
// nobody wants the result any more: the process was cancelled, its time is over, or somebody else has it.
type Func func(ctx context.Context, call *Call) (Outputs, error)

// Call is one attempt at a process.
type Call struct {
	*schedulerv1.Assignment
	// The executor's own, for what a function may do besides returning: logs, attributes, channels, children.
	Client *Client
	// The arguments, then the outputs of its parents, and the keyword arguments; see Decode.
	Args   []any
	Kwargs map[string]any
}

// Ref names the attempt, in requests about it.
func (c *Call) Ref() *schedulerv1.AttemptRef {
	return &schedulerv1.AttemptRef{ProcessId: c.ProcessId, Attempt: c.Attempt}
}

// Arg decodes an argument into a Go value (DecodeInto), counted from 0 over the arguments and the outputs of the parents.
func (c *Call) Arg(index int, into any) error {
	given := c.values()
	if index < 0 || index >= len(given) {
		return fmt.Errorf("there is no argument %d: %d were given", index+1, len(given))
	}
	if err := DecodeInto(given[index], into); err != nil {
		return fmt.Errorf("argument %d: %w", index+1, err)
	}
	return nil
}

func (c *Call) String() string {
	name := c.Spec.NodeName
	if name == "" {
		name = c.Spec.FuncName
	}
	return fmt.Sprintf("%s (process %s, attempt %d)", name, c.ProcessId, c.Attempt)
}

func (c *Call) values() []*schedulerv1.Value {
	values := make([]*schedulerv1.Value, 0, len(c.Spec.Args)+len(c.Inputs))
	return append(append(values, c.Spec.Args...), c.Inputs...)
}

func (c *Call) decode() (err error) {
	given := c.values()
	c.Args, c.Kwargs = make([]any, len(given)), map[string]any{}
	for index, value := range given {
		if c.Args[index], err = Decode(value); err != nil {
			return fmt.Errorf("argument %d: %w", index+1, err)
		}
	}
	for key, value := range c.Spec.Kwargs {
		if c.Kwargs[key], err = Decode(value); err != nil {
			return fmt.Errorf("keyword argument %q: %w", key, err)
		}
	}
	return nil
}

type retryable struct{ error }

func (r retryable) Unwrap() error { return r.error }

// Retryable marks an error after which trying again may help: the process goes back to the queue, if its max_retries allow.
func Retryable(err error) error { return retryable{err} }

// State is what an executor is about.
type State string

// The states of an executor, in the order in which they come first.
const (
	Joining            State = "joining"
	WaitingForApproval State = "waiting_for_approval"
	Ready              State = "ready"
	// Its stream broke; what it has in hand goes on.
	Reconnecting State = "reconnecting"
	Draining     State = "draining"
)

// Executor pulls work from the colony of its client and runs it. What is exported may be changed until Run.
type Executor struct {
	// Unique among the colony's executors.
	Name string
	// The types of work that it takes.
	Types []string
	// How many functions may run at once: 1 to 1000.
	Concurrency int
	// What it offers. Processors, and the labels language, os and arch, are found out.
	Capabilities *registryv1.Capabilities
	// The name of the place where it is; empty for nowhere in particular.
	Location string
	// How long running functions have to finish when the executor ends.
	DrainTimeout time.Duration
	// Called when the state changes, and when an attempt is dropped, whose function's context has ended then. They must not wait.
	OnState func(State)
	OnDrop  func(call *Call, reason schedulerv1.DropReason)
	// Where it says what happens; default log.Printf.
	Logf func(format string, args ...any)

	client    *Client
	functions map[string]Func
	announced map[string]*registryv1.Function
	state     State
}

// NewExecutor makes an executor with a key of its own, that of the client.
func NewExecutor(client *Client, name string, types ...string) *Executor {
	return &Executor{
		Name: name, Types: types, Concurrency: 1, DrainTimeout: 30 * time.Second, Logf: log.Printf,
		Capabilities: &registryv1.Capabilities{
			Cpu:    fmt.Sprint(runtime.NumCPU()),
			Labels: map[string]string{"language": "go", "os": runtime.GOOS, "arch": runtime.GOARCH},
		},
		OnState: func(State) {}, OnDrop: func(*Call, schedulerv1.DropReason) {},
		client: client, functions: map[string]Func{}, announced: map[string]*registryv1.Function{},
	}
}

// Function offers a function. What is returned is announced, and may be completed until Run: description, arguments.
func (e *Executor) Function(name string, function Func) *registryv1.Function {
	e.functions[name] = function
	e.announced[name] = &registryv1.Function{Name: name}
	return e.announced[name]
}

// RunUntilSignal works until SIGTERM or an interrupt, then drains; a second signal ends the program at once.
func (e *Executor) RunUntilSignal() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() {
		<-ctx.Done()
		stop()
	}()
	return e.Run(ctx)
}

// Run works until the context ends, then drains: it takes nothing new, finishes what it has in hand, and closes it. It returns an
// error if the server refuses what this executor says of itself, or if the colony's owner has rejected it.
func (e *Executor) Run(ctx context.Context) error {
	if len(e.Types) == 0 {
		return errors.New("an executor takes at least one type of work")
	}
	if e.Concurrency < 1 || e.Concurrency > 1000 {
		return fmt.Errorf("the concurrency is %d: it is 1 to 1000", e.Concurrency)
	}
	hand := newHand(e)
	defer hand.cancel()
	go hand.beat()
	err := e.join(ctx)
	if err == nil {
		err = e.pull(ctx, hand)
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	e.enter(Draining)
	hand.drain()
	return nil
}

func (e *Executor) enter(state State) {
	if e.state != state {
		e.state = state
		e.OnState(state)
	}
}

// join registers, waits for the approval, and announces the functions.
func (e *Executor) join(ctx context.Context) error {
	e.enter(Joining)
	var wait backoff
	for {
		approved, err := e.register(ctx)
		if failure := failureOf(err); failure != nil && (failure.RetryDelay > 0 || failure.Code == codes.ResourceExhausted) {
			e.Logf("cannot register yet: %v", err)
			if !wait.sleep(ctx, failure.RetryDelay) {
				return ctx.Err()
			}
			continue
		} else if err != nil {
			return err
		}
		if !approved {
			if e.state != WaitingForApproval {
				e.Logf("waiting for approval in colony %s: colonies executor approve %s   (identity %s)", e.client.Colony, e.Name, e.client.Identity())
			}
			e.enter(WaitingForApproval)
			if !sleep(ctx, longestBackoff) {
				return ctx.Err()
			}
			continue
		}
		err = e.announce(ctx)
		if failure := failureOf(err); failure == nil || !failure.isAboutApproval() {
			return err
		}
		// Approved a moment ago, and not every replica knows it yet; or no longer, and registering tells.
		if !wait.sleep(ctx, 0) {
			return ctx.Err()
		}
	}
}

func (e *Executor) register(ctx context.Context) (approved bool, err error) {
	err = e.patiently(ctx, func(ctx context.Context) error {
		reply, err := registryv1.NewRegistryServiceClient(e.client).RegisterExecutor(ctx, &registryv1.RegisterExecutorRequest{
			Colony: e.client.Colony, Name: e.Name, ExecutorTypes: e.Types, LocationName: e.Location, Capabilities: e.Capabilities,
		})
		approved = reply.GetExecutor().GetState() == registryv1.ExecutorState_EXECUTOR_STATE_APPROVED
		return err
	})
	return approved, err
}

func (e *Executor) announce(ctx context.Context) error {
	request := &registryv1.AnnounceFunctionsRequest{ColonyName: e.client.Colony}
	for _, name := range e.names() {
		request.Functions = append(request.Functions, e.announced[name])
	}
	return e.patiently(ctx, func(ctx context.Context) error {
		_, err := registryv1.NewRegistryServiceClient(e.client).AnnounceFunctions(ctx, request)
		return err
	})
}

// patiently is Retry, which says once that nobody answers.
func (e *Executor) patiently(ctx context.Context, call func(context.Context) error) error {
	told := false
	return Retry(ctx, func(try context.Context) error {
		err := call(try)
		if failure := failureOf(err); failure != nil && failure.isOutage() && !told && ctx.Err() == nil {
			told = true
			e.Logf("no answer from %s, trying until there is one: %v", e.client.Address, err)
		}
		return err
	})
}

func (e *Executor) names() []string {
	names := make([]string, 0, len(e.functions))
	for name := range e.functions {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func (e *Executor) unknown(name string) error {
	return fmt.Errorf("this executor has no function %q; it has: %s (work goes to any executor of its type: give those with other "+
		"functions another type)", name, strings.Join(e.names(), ", "))
}
