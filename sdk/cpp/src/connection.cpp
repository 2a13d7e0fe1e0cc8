#include "colonies/connection.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/channel_arguments.h>
#include <grpcpp/support/client_interceptor.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>
#include <vector>

namespace colonies {

namespace {

using grpc::experimental::InterceptionHookPoints;
using Clock = std::chrono::steady_clock;

constexpr int MAX_MESSAGE_BYTES = 64 << 20;
// A service that loses its memory of nonces again and again is a fault that should be seen.
constexpr int MAX_PREFIXES = 3;

// Signs a call when it is sent. Metadata and message are in one batch for all calls but those that stream requests; there are
// none in Colonies, and a service would refuse them for having no signature.
class SigningInterceptor : public grpc::experimental::Interceptor {
 public:
  SigningInterceptor(std::shared_ptr<Signer> signer, grpc::experimental::ClientRpcInfo* info)
      : signer_(std::move(signer)), context_(info->client_context()), method_(info->method()) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_INITIAL_METADATA) &&
        batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_MESSAGE)) {
      sign(*batch->GetSerializedSendMessage(), *batch->GetSendInitialMetadata());
    }
    batch->Proceed();
  }

 private:
  void sign(grpc::ByteBuffer& message, std::multimap<std::string, std::string>& metadata) {
    grpc::Slice body;
    try {
      if (!message.DumpToSingleSlice(&body).ok()) throw std::runtime_error("a message without bytes");
      const std::string_view bytes(reinterpret_cast<const char*>(body.begin()), body.size());
      for (auto& entry : signer_->sign(method_, bytes)) metadata.insert(std::move(entry));
    } catch (const std::exception&) {
      // gRPC lets no exception through. What could not be signed is not to be sent.
      context_->TryCancel();
    }
  }

  const std::shared_ptr<Signer> signer_;
  grpc::ClientContext* const context_;
  const std::string method_;
};

class SigningInterceptors : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit SigningInterceptors(std::shared_ptr<Signer> signer) : signer_(std::move(signer)) {}

  grpc::experimental::Interceptor* CreateClientInterceptor(grpc::experimental::ClientRpcInfo* info) override {
    return new SigningInterceptor(signer_, info);  // gRPC owns it
  }

 private:
  const std::shared_ptr<Signer> signer_;
};

std::string content_of(const std::string& path) {
  if (path.empty()) return "";
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file || text.empty()) throw Refused("cannot read " + path);
  return text;
}

std::shared_ptr<grpc::ChannelCredentials> credentials_for(const Settings& settings) {
  if (!settings.uses_tls()) return grpc::InsecureChannelCredentials();
  if (settings.cert_file.empty() != settings.cert_key_file.empty()) {
    throw Refused("a certificate and its private key belong together: there is only one of them");
  }
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = content_of(settings.ca_file);
  options.pem_cert_chain = content_of(settings.cert_file);
  options.pem_private_key = content_of(settings.cert_key_file);
  return grpc::SslCredentials(options);
}

grpc::ChannelArguments arguments_for(const Settings& settings) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(MAX_MESSAGE_BYTES);
  arguments.SetMaxSendMessageSize(MAX_MESSAGE_BYTES);
  // A stream may be silent for a while; pings find out about a dead peer sooner than TCP would.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // After an outage, look again soon. The least back-off is not waited for: it is what an attempt to connect may take, with all
  // that the server says first, however busy it is.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, settings.uses_tls() ? 5'000 : 2'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  // Connections are shared by channels with equal arguments, and so are their back-offs and ends.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

}  // namespace

void Cancellation::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  for (auto* context : calls_) context->TryCancel();
  changed_.notify_all();
}

bool Cancellation::cancelled() const {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

bool Cancellation::wait(Milliseconds time) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, time, [this] { return cancelled_; });
}

Cancellation::Entry::Entry(Cancellation* cancellation, grpc::ClientContext& context)
    : cancellation_(cancellation), context_(context) {
  if (cancellation_ == nullptr) return;
  const std::lock_guard lock(cancellation_->mutex_);
  cancellation_->calls_.insert(&context_);
  if (cancellation_->cancelled_) context_.TryCancel();
}

Cancellation::Entry::~Entry() {
  if (cancellation_ == nullptr) return;
  const std::lock_guard lock(cancellation_->mutex_);
  cancellation_->calls_.erase(&context_);
}

Milliseconds Backoff::next(std::optional<Milliseconds> at_least) {
  thread_local std::minstd_rand random{std::random_device{}()};
  const int longest = std::min(2'000, 50 << std::min(tries_++, 6));
  return std::max(Milliseconds(std::uniform_int_distribution<int>(longest / 2, longest)(random)), at_least.value_or(Milliseconds(0)));
}

Connection::Connection(Settings settings, PrivateKey key)
    : settings_(std::move(settings)), signer_(std::make_shared<Signer>(std::move(key), settings_.cluster)) {
  settings_.check();
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<SigningInterceptors>(signer_));
  channel_ = grpc::experimental::CreateCustomChannelWithInterceptors(settings_.address(), credentials_for(settings_),
                                                                     arguments_for(settings_), std::move(interceptors));
}

Connection::Connection(Settings settings) : Connection(settings, PrivateKey::load(settings.key_file)) {}

grpc::Status Connection::attempt(const Try& once, const CallOptions& options) {
  const auto deadline = std::chrono::system_clock::now() + options.timeout.value_or(Milliseconds(0));
  for (int prefixes = 0;; ++prefixes) {
    grpc::ClientContext context;
    if (options.timeout) context.set_deadline(deadline);
    const Cancellation::Entry entry(options.cancellation, context);
    const grpc::Status status = once(context);
    if (status.error_code() != grpc::StatusCode::UNAUTHENTICATED || prefixes == MAX_PREFIXES) return status;
    const Error refused(status);
    const auto prefix = refused.metadata.find("nonce_prefix");
    if (refused.reason != "NONCE_PREFIX_REQUIRED" || prefix == refused.metadata.end()) return status;
    if (!signer_->use_nonce_prefix(prefix->second)) return status;
  }
}

void Connection::repeat(const Try& once, const CallOptions& options) {
  const auto give_up = Clock::now() + options.retry_for;
  for (Backoff backoff;;) {
    const grpc::Status status = attempt(once, options);
    if (status.ok()) return;
    const Error error(status);
    if (!error.is_outage() && !error.is_pace()) throw error;
    const Milliseconds wait = backoff.next(error.retry_delay);
    if (Clock::now() + wait > give_up) throw error;
    if (pause(wait, options.cancellation)) throw error;
  }
}

bool Connection::pause(Milliseconds time, const Cancellation* cancellation) {
  const auto end = Clock::now() + time;
  const auto cancelled = [cancellation] { return cancellation != nullptr && cancellation->cancelled(); };
  // A connection is only made while somebody waits for something of the channel: with all threads asleep between calls that fail
  // at once, each attempt would run out of time unseen, and there would never be one again.
  while (!cancelled() && Clock::now() < end) {
    const auto slice = std::min(Milliseconds(100), std::chrono::ceil<Milliseconds>(end - Clock::now()));
    if (channel_->WaitForConnected(std::chrono::system_clock::now() + slice)) break;
  }
  const auto rest = std::max(Milliseconds(0), std::chrono::ceil<Milliseconds>(end - Clock::now()));
  if (cancellation != nullptr) return cancellation->wait(rest);
  std::this_thread::sleep_for(rest);
  return false;
}

}  // namespace colonies
