// An executor: a program that pulls work from a colony and runs it with its functions.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "colonies/connection.h"
#include "colonies/registry/v1/registry_service.pb.h"
#include "colonies/scheduler/v1/scheduler_service.pb.h"
#include "colonies/values.h"

namespace colonies {

// What a function returns: nothing, one output (anything that becomes Json), or several by `add`.
class Outputs {
 public:
  Outputs() = default;
  template <class Type, class = std::enable_if_t<std::is_constructible_v<Json, Type> && !std::is_same_v<std::decay_t<Type>, Outputs>>>
  Outputs(Type&& output) : values_{encode(Json(std::forward<Type>(output)))} {}

  Outputs& add(const Json& output) { return add(encode(output)); }
  // As it is, of any media type.
  Outputs& add(Value output) {
    values_.push_back(std::move(output));
    return *this;
  }
  const std::vector<Value>& values() const { return values_; }

 private:
  std::vector<Value> values_;
};

// One attempt at a process, as its function sees it.
class Call {
 public:
  explicit Call(scheduler::v1::Assignment assignment) : assignment_(std::move(assignment)) {}

  // All that the server sent.
  const scheduler::v1::Assignment& assignment() const { return assignment_; }
  // A UUID, and the attempt's number from 1: higher when the process has been tried before.
  const std::string& process_id() const { return assignment_.process_id(); }
  int attempt() const { return assignment_.attempt(); }

  // The positional arguments: those of the spec, then the outputs of its parents.
  int size() const { return assignment_.spec().args_size() + assignment_.inputs_size(); }
  // One as it came. Throws Refused if there is none.
  const Value& value(int index) const;
  // One as a C++ value. Throws, and by that fails the process, if there is none, or it is of another type, or too large for it.
  template <class Type = Json>
  Type arg(int index) const {
    return fitting<Type>(decode(value(index)));
  }
  // A keyword argument, if it is there.
  template <class Type = Json>
  std::optional<Type> kwarg(const std::string& name) const {
    const auto found = assignment_.spec().kwargs().find(name);
    if (found == assignment_.spec().kwargs().end()) return std::nullopt;
    return fitting<Type>(decode(found->second));
  }

  // Whether the result is no longer wanted, for the process was cancelled, its time is over, or this executor ends: look at it
  // now and then, and return. What is returned then goes nowhere.
  bool dropped() const { return dropped_.cancelled(); }
  // Sleeps for so long, or until it is dropped; gives whether it is.
  bool wait(Milliseconds time) const { return dropped_.wait(time); }
  // For `CallOptions`: ends the function's own calls when it is dropped.
  Cancellation& cancellation() { return dropped_; }

 private:
  friend class Work;

  template <class Type>
  static Type fitting(const Json& json) {
    Type value = json.get<Type>();
    if constexpr (std::is_arithmetic_v<Type>) {
      if (json.is_number() && Json(value) != json) throw Refused("the number " + json.dump() + " does not fit the argument's type");
    }
    return value;
  }

  const scheduler::v1::Assignment assignment_;
  Cancellation dropped_;
};

using Function = std::function<Outputs(Call&)>;

enum class State { JOINING, WAITING_FOR_APPROVAL, READY, RECONNECTING, DRAINING };

struct ExecutorOptions {
  // A Name, unique among the colony's executors, and the types of work that it takes.
  std::string name;
  std::vector<std::string> types = {"edge"};
  // The location where it is; empty for nowhere in particular.
  std::string location;
  // How many functions may run at once, each in a thread: 1 to 1 000.
  int concurrency = 1;
  // The file of its own key, which is made at the first start; empty: `executor_key_file`. An executor is no user, and takes no
  // user's key.
  std::string key_file;
  // What it offers. Fields that are set replace what is found out about this machine; labels are added to those.
  registry::v1::Capabilities capabilities;
  // How long running functions have to finish after `stop` or the first signal.
  Milliseconds drain_timeout = std::chrono::seconds(30);
  // Lines about what it does; by default they go to stderr. This and the next two are called by any thread, one at a time.
  std::function<void(const std::string&)> log;
  std::function<void(State)> on_state;
  // An attempt was dropped, and why; its function has been told.
  std::function<void(const Call&, const std::string&)> on_drop;
};

class Executor {
 public:
  // Throws Refused if an option is out of bounds.
  Executor(std::shared_ptr<Connection> connection, ExecutorOptions options);
  // The same, with a connection of its own and the key in `options.key_file`.
  Executor(Settings settings, ExecutorOptions options);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Offers a function. It is run by several threads at once if the concurrency is more than 1. An exception fails the process;
  // a Retryable lets it be tried again. Throws Refused if the name is taken.
  void function(const std::string& name, Function function, const std::string& description = "");

  // Works until SIGTERM, SIGINT or `stop`, then drains: takes nothing new, finishes and reports what it has in hand. A second
  // signal ends the program. Rides out outages of any length. Can be called once.
  //
  // Throws Error if the colony's owner has rejected this executor, or the server refuses what it says of itself. A function that
  // does not end in time goes on in its thread; what it returns goes nowhere.
  void run();
  // The same without signals, for programs that handle them themselves.
  void run_until_stopped();
  // Begins the drain. For any thread.
  void stop();

 private:
  const std::shared_ptr<class Work> work_;
};

}  // namespace colonies
