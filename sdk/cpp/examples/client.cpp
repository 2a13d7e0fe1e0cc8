// A client in C++: submits `square` of the number in its first argument, waits for the result, and prints it. See README.md for
// what it needs in the environment.

#include <iostream>
#include <random>

#include "colonies/connection.h"
#include "colonies/scheduler/v1/scheduler_service.grpc.pb.h"
#include "colonies/values.h"

namespace scheduler = colonies::scheduler::v1;
using Stub = scheduler::SchedulerService::Stub;

namespace {

std::string submit(colonies::Connection& connection, Stub& stub, std::int64_t number) {
  scheduler::SubmitProcessesRequest request;
  request.set_colony_name(connection.settings().colony);
  // A submit that is repeated with its id enters nothing twice.
  request.set_request_id("square-" + std::to_string(colonies::now_ms()) + "-" + std::to_string(std::random_device{}()));
  auto& spec = *request.add_specs();
  spec.set_func_name("square");
  *spec.add_args() = colonies::encode(number);
  spec.mutable_conditions()->set_executor_type("edge");
  return connection.call(stub, &Stub::SubmitProcesses, request).process_ids(0);
}

// Reads its changes until there are no more, again and again if the stream breaks.
scheduler::Process ended(colonies::Connection& connection, Stub& stub, const std::string& process_id) {
  scheduler::WatchProcessesRequest watch;
  watch.set_colony_name(connection.settings().colony);
  watch.set_process_id(process_id);
  colonies::CallOptions stream;
  stream.timeout.reset();
  connection.repeat(
      [&](grpc::ClientContext& context) {
        const auto reader = stub.WatchProcesses(&context, watch);
        scheduler::WatchProcessesResponse response;
        while (reader->Read(&response)) watch.set_cursor(response.cursor());
        return reader->Finish();
      },
      stream);
  scheduler::GetProcessRequest request;
  request.set_colony_name(connection.settings().colony);
  request.set_process_id(process_id);
  return connection.call(stub, &Stub::GetProcess, request).process();
}

}  // namespace

int main(int count, char** arguments) {
  try {
    colonies::Connection connection(colonies::Settings::from_env());
    const auto stub = scheduler::SchedulerService::NewStub(connection.channel());
    const auto process_id = submit(connection, *stub, count > 1 ? std::stoll(arguments[1]) : 12);
    std::cout << "submitted " << process_id << "\n";
    const auto process = ended(connection, *stub, process_id);
    if (process.state() != scheduler::PROCESS_STATE_SUCCESSFUL) throw std::runtime_error(process.errors(0));
    std::cout << "result " << colonies::decode(process.outputs(0)) << "\n";
  } catch (const std::exception& error) {
    std::cerr << "client: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
