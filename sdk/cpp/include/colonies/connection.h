// A signed connection to one server on behalf of one key.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "colonies/error.h"
#include "colonies/settings.h"
#include "colonies/signing.h"

namespace colonies {

using Milliseconds = std::chrono::milliseconds;

// Ends calls from another thread: those that run, and those that are made later.
class Cancellation {
 public:
  void cancel();
  bool cancelled() const;
  // Waits for so long, or until it is cancelled; gives whether it is.
  bool wait(Milliseconds time) const;

 private:
  friend class Connection;
  // A call, for as long as it runs.
  class Entry {
   public:
    // Without a cancellation there is nothing to do.
    Entry(Cancellation* cancellation, grpc::ClientContext& context);
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    ~Entry();

   private:
    Cancellation* const cancellation_;
    grpc::ClientContext& context_;
  };

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool cancelled_ = false;
  std::set<grpc::ClientContext*> calls_;
};

// Waiting times before further tries: 50 ms doubling to 2 s, up to half of it taken away at random, so that the clients of a
// restarted server do not come back all at once.
class Backoff {
 public:
  // Never shorter than the server asked for.
  Milliseconds next(std::optional<Milliseconds> at_least = std::nullopt);
  void reset() { tries_ = 0; }

 private:
  int tries_ = 0;
};

struct CallOptions {
  // For each try; none for streams.
  std::optional<Milliseconds> timeout = Milliseconds(30'000);
  // How long an outage is ridden out before the call fails. Every RPC may be repeated: submits have a request id, closes are
  // fenced, the others set a state.
  Milliseconds retry_for = Milliseconds(30'000);
  Cancellation* cancellation = nullptr;
};

inline constexpr Milliseconds FOR_EVER = std::chrono::hours(24 * 365 * 100);

class Connection {
 public:
  // Makes one try of a call, with this context.
  using Try = std::function<grpc::Status(grpc::ClientContext&)>;

  // Nothing is connected yet. Throws Refused if the settings make no sense: no cluster, plaintext to another machine, a file of
  // certificates that cannot be read.
  Connection(Settings settings, PrivateKey key);
  // The same, with the key in `settings.key_file`.
  explicit Connection(Settings settings);

  const Settings& settings() const { return settings_; }
  const PrivateKey& key() const { return signer_->key(); }

  // Signs every call that is made through it, for the stubs of all services; the signed bytes are the sent bytes. A service may
  // refuse a call because its nonce must begin with a prefix: `call` and `attempt` repeat it, and keep the prefix.
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  // Makes a unary call of a stub, and again while the server is out of reach or asks to call less often. Throws Error.
  //
  //   auto stub = SchedulerService::NewStub(connection.channel());
  //   auto response = connection.call(*stub, &SchedulerService::Stub::GetProcess, request);
  template <class Stub, class Request, class Response>
  Response call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*), const Request& request,
                const CallOptions& options = {}) {
    Response response;
    repeat([&](grpc::ClientContext& context) { return (stub.*method)(&context, request, &response); }, options);
    return response;
  }
  // What `call` does, with any kind of try.
  void repeat(const Try& once, const CallOptions& options = {});

  // Makes a call or reads a stream to its end, once: it is only repeated, at once, if its nonce must have a prefix.
  grpc::Status attempt(const Try& once, const CallOptions& options = {});
  // Waits so long between two tries, and sees that there is a connection meanwhile; gives whether it was cancelled.
  bool pause(Milliseconds time, const Cancellation* cancellation);

 private:
  const Settings settings_;
  const std::shared_ptr<Signer> signer_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace colonies
