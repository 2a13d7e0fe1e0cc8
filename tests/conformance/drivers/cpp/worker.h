// An executor of the driver, with the functions that every language has.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "colonies/executor.h"
#include "lines.h"

using colonies::Json;

// What functions that hold wait for. A token is the last one's that took it: an earlier attempt may still be on its way out.
class Gates {
 public:
  // Gives false if nobody holds the token.
  bool open(const std::string& token, const std::optional<colonies::Outputs>& outputs) {
    const std::lock_guard lock(mutex_);
    const auto held = held_.find(token);
    if (held == held_.end() || held->second->open) return false;
    *held->second = {true, outputs};
    changed_.notify_all();
    return true;
  }
  void look_again() {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }
  // Tells that it has begun, and waits; gives what is returned in place of the function's own outputs, if there is something.
  std::optional<colonies::Outputs> pass(const std::string& token, const colonies::Call& call, const Line& started) {
    Gate gate;
    std::unique_lock lock(mutex_);
    held_[token] = &gate;
    write(started);
    changed_.wait(lock, [&] { return call.dropped() || gate.open; });
    if (held_[token] == &gate) held_.erase(token);
    if (!gate.open) throw std::runtime_error("dropped");
    return gate.outputs;
  }

 private:
  struct Gate {
    bool open = false;
    std::optional<colonies::Outputs> outputs;
  };
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Gate*> held_;
};

inline bool is_json(const colonies::Value& value) { return value.media_type().empty() || value.media_type() == "application/json"; }

// JSON as this language has it; all else as it came.
inline colonies::Outputs arguments_from(const colonies::Call& call, int first) {
  colonies::Outputs outputs;
  for (int index = first; index < call.size(); ++index) {
    if (is_json(call.value(index))) {
      outputs.add(call.arg(index));
    } else {
      outputs.add(call.value(index));
    }
  }
  return outputs;
}

class Worker {
 public:
  Worker(std::string id, std::shared_ptr<colonies::Connection> connection, const Json& given) : id_(std::move(id)) {
    colonies::ExecutorOptions options;
    options.name = given.at("name");
    options.types = given.at("types").get<std::vector<std::string>>();
    options.concurrency = given.at("concurrency");
    for (const auto& [key, value] : given.value("labels", std::map<std::string, std::string>())) {
      (*options.capabilities.mutable_labels())[key] = value;
    }
    options.on_state = [this](colonies::State state) {
      static const char* const names[] = {"joining", "waiting_for_approval", "ready", "reconnecting", "draining"};
      write({{"event", "state"}, {"executor", id_}, {"state", names[static_cast<int>(state)]}});
    };
    options.on_drop = [this](const colonies::Call& call, const std::string& reason) {
      gates_.look_again();
      Line event = event_of("dropped", call);
      event["reason"] = reason;
      write(event);
    };
    executor_ = std::make_unique<colonies::Executor>(std::move(connection), std::move(options));
    offer_functions();
  }

  void start() {
    thread_ = std::thread([this] {
      Line event = {{"event", "stopped"}, {"executor", id_}};
      try {
        executor_->run();
      } catch (const colonies::Error& error) {
        event["error"] = described(error);
      }
      ended_ = true;
      write(event);
    });
  }
  bool ended() const { return ended_; }
  void stop() { executor_->stop(); }
  void wait() { thread_.join(); }

  void release(const Json& given) {
    std::optional<colonies::Outputs> outputs;
    if (given.contains("outputs")) {
      outputs.emplace();
      for (const auto& text : given.at("outputs")) outputs->add(Json::parse(text.get<std::string>()));
    }
    if (!gates_.open(given.at("token"), outputs)) throw colonies::Refused("nobody holds this token");
  }

 private:
  Line event_of(const std::string& name, const colonies::Call& call) const {
    return {{"event", name}, {"executor", id_}, {"process_id", call.process_id()}, {"attempt", call.attempt()}};
  }

  void offer_functions() {
    auto& executor = *executor_;
    executor.function("echo", [](colonies::Call& call) {
      auto outputs = arguments_from(call, 0);
      Json named = Json::object();
      for (const auto& [key, value] : call.assignment().spec().kwargs()) named[key] = colonies::decode(value);
      if (!named.empty()) outputs.add(named);
      return outputs;
    });
    executor.function("add", [](colonies::Call& call) -> colonies::Outputs {
      bool whole = true;
      std::int64_t sum = 0;
      double total = 0;
      for (int index = 0; index < call.size(); ++index) {
        const Json number = call.arg(index);
        if (number.is_number_integer()) {
          if (__builtin_add_overflow(sum, call.arg<std::int64_t>(index), &sum)) throw colonies::Refused("the sum is too large");
        }
        whole = whole && number.is_number_integer();
        total += call.arg<double>(index);
      }
      return whole ? Json(sum) : Json(total);
    });
    executor.function("fail", [](colonies::Call& call) -> colonies::Outputs {
      throw std::runtime_error(call.arg<std::string>(0));
    });
    executor.function("fail_retryable", [](colonies::Call& call) -> colonies::Outputs {
      throw colonies::Retryable(call.arg<std::string>(0));
    });
    executor.function("crash", [](colonies::Call& call) -> colonies::Outputs {
      throw std::logic_error(call.arg<std::string>(0));
    });
    executor.function("nothing", [](colonies::Call&) { return colonies::Outputs(); });
    executor.function("hold", [this](colonies::Call& call) {
      const auto token = call.arg<std::string>(0);
      Line event = event_of("started", call);
      event["function"] = call.assignment().spec().func_name();
      event["token"] = token;
      event["args"] = Line::array();
      for (int index = 0; index < call.size(); ++index) event["args"].push_back(call.value(index).data());
      const auto given = gates_.pass(token, call, event);
      return given ? *given : arguments_from(call, 1);
    });
    executor.function("effect", [this](colonies::Call& call) {
      Line event = event_of("effect", call);
      event["text"] = call.arg<std::string>(0);
      write(event);
      return arguments_from(call, 1);
    });
  }

  const std::string id_;
  Gates gates_;
  std::unique_ptr<colonies::Executor> executor_;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};
