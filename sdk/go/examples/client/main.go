// Submits one function and waits for its result: `client square 12`.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"colonies"
	"colonies/build/schedulerv1"
)

const executorType = "edge"

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: client FUNCTION [JSON...]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, function string, texts []string) error {
	settings, err := colonies.SettingsFromEnv()
	if err != nil {
		return err
	}
	key, err := settings.LoadKey()
	if err != nil {
		return err
	}
	client, err := colonies.Dial(settings, key)
	if err != nil {
		return err
	}
	defer client.Close()
	var args []*schedulerv1.Value
	for _, text := range texts {
		arg, err := colonies.Encode(json.RawMessage(text))
		if err != nil {
			return err
		}
		args = append(args, arg)
	}
	process, err := submit(ctx, client, function, args)
	if err != nil {
		return err
	}
	if err := wait(ctx, client, process); err != nil {
		return err
	}
	return print(ctx, client, process)
}

func submit(ctx context.Context, client *colonies.Client, function string, args []*schedulerv1.Value) (process string, err error) {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	request := &schedulerv1.SubmitProcessesRequest{
		ColonyName: client.Colony,
		// However often the call is made with it, this is submitted once.
		RequestId: hex.EncodeToString(random),
		Specs: []*schedulerv1.FunctionSpec{{
			FuncName: function, Args: args, MaxRetries: 3,
			Conditions: &schedulerv1.Conditions{ExecutorType: executorType},
		}},
	}
	err = colonies.Retry(ctx, func(ctx context.Context) error {
		reply, err := schedulerv1.NewSchedulerServiceClient(client).SubmitProcesses(ctx, request)
		if err == nil {
			process = reply.ProcessIds[0]
		}
		return err
	})
	return process, err
}

// wait reads what becomes of a process until it has ended.
func wait(ctx context.Context, client *colonies.Client, process string) error {
	cursor := ""
	follow := func() error {
		stream, err := schedulerv1.NewSchedulerServiceClient(client).WatchProcesses(ctx, &schedulerv1.WatchProcessesRequest{
			ColonyName: client.Colony, Cursor: cursor,
			Target: &schedulerv1.WatchProcessesRequest_ProcessId{ProcessId: process},
		})
		for err == nil {
			var message *schedulerv1.WatchProcessesResponse
			if message, err = stream.Recv(); err == nil {
				cursor = message.Cursor
			}
			for _, event := range message.GetEvents() {
				log.Printf("%s %s", event.Transition.ToState, event.ExecutorName)
			}
		}
		if err == io.EOF {
			return nil
		}
		return err
	}
	// A stream that breaks goes on at its cursor. Retry limits single calls to 30 s, so streams use the context of all.
	return colonies.Retry(ctx, func(context.Context) error { return follow() })
}

func print(ctx context.Context, client *colonies.Client, id string) error {
	var process *schedulerv1.Process
	err := colonies.Retry(ctx, func(ctx context.Context) error {
		reply, err := schedulerv1.NewSchedulerServiceClient(client).GetProcess(ctx, &schedulerv1.GetProcessRequest{
			ColonyName: client.Colony, ProcessId: id,
		})
		process = reply.GetProcess()
		return err
	})
	if err != nil {
		return err
	}
	if process.State != schedulerv1.ProcessState_PROCESS_STATE_SUCCESSFUL {
		return fmt.Errorf("%s: %v", process.State, process.Errors)
	}
	for _, output := range process.Outputs {
		value, err := colonies.Decode(output)
		if err != nil {
			return err
		}
		fmt.Println(value)
	}
	return nil
}
