// Joining a colony: register, wait for the owner's approval, announce the functions.

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "work.h"

namespace colonies {

namespace reg = colonies::registry::v1;
using Registry = reg::RegistryService::Stub;
using grpc::StatusCode;

namespace {

constexpr Milliseconds APPROVAL_POLL{2'000};

// What this machine offers, with what the author says instead or in addition.
reg::Capabilities offered(const ExecutorOptions& options) {
  reg::Capabilities found;
  found.set_cpu(std::to_string(std::max(1u, std::thread::hardware_concurrency())));
  const auto bytes = static_cast<std::int64_t>(sysconf(_SC_PAGE_SIZE)) * sysconf(_SC_PHYS_PAGES);
  found.set_memory(std::to_string(bytes >> 20) + "Mi");
  found.set_processes(options.concurrency);
  struct utsname system = {};
  uname(&system);
  (*found.mutable_labels())["os"] = "linux";
  (*found.mutable_labels())["arch"] = system.machine;
  (*found.mutable_labels())["language"] = "cpp";
  found.MergeFrom(options.capabilities);
  return found;
}

}  // namespace

// Returns when the executor is approved and its functions are announced.
void Work::join() {
  enter(State::JOINING);
  reg::RegisterExecutorRequest request;
  request.set_colony(connection_->settings().colony);
  request.set_name(options_.name);
  request.mutable_executor_types()->Assign(options_.types.begin(), options_.types.end());
  request.set_location_name(options_.location);
  *request.mutable_capabilities() = offered(options_);
  Backoff backoff;
  bool lost = false;
  while (!pulling_.cancelled()) {
    Milliseconds wait = APPROVAL_POLL;
    try {
      const auto response = connection_->call(*registry_, &Registry::RegisterExecutor, request,
                                              {Milliseconds(30'000), Milliseconds(0), &pulling_});
      lost = false;
      if (response.executor().state() == reg::EXECUTOR_STATE_APPROVED) {
        if (announced()) return;
        wait = backoff.next();
      } else if (state_ != State::WAITING_FOR_APPROVAL) {
        enter(State::WAITING_FOR_APPROVAL);
        say("waiting for approval in colony " + connection_->settings().colony + ": colonies executor approve " + options_.name + "   (identity " +
            connection_->key().identity() + ")");
      }
    } catch (const Error& error) {
      // Too many of something, or what proxies make of answers that are not gRPC's: it says nothing about this executor.
      const bool passes = error.is_outage() || error.code == StatusCode::RESOURCE_EXHAUSTED || error.code == StatusCode::INTERNAL;
      if (!passes || pulling_.cancelled()) throw;
      // An outage is told of once.
      if (!lost || !error.is_outage()) say(std::string("cannot register yet, trying until it is done: ") + error.what());
      lost = error.is_outage();
      wait = lost ? backoff.next(error.retry_delay) : std::max(wait, error.retry_delay.value_or(wait));
    }
    connection_->pause(wait, &pulling_);
  }
}

// Gives false if not every replica knows yet that the executor was approved a moment ago.
bool Work::announced() {
  try {
    connection_->call(*registry_, &Registry::AnnounceFunctions, announcement_, {Milliseconds(30'000), Milliseconds(0), &pulling_});
  } catch (const Error& error) {
    if (error.is_about_approval()) return false;
    throw;
  }
  std::string types;
  for (const auto& type : options_.types) types += (types.empty() ? "" : ", ") + type;
  say("executor " + options_.name + " serves " + types + " in colony " + connection_->settings().colony);
  return true;
}

}  // namespace colonies
