// The driver of the conformance kit for C++ (tests/conformance/README.md): commands in, answers and events out, a line each.

#include <google/protobuf/descriptor.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <thread>

#include "colonies/auth/v1/auth_service.pb.h"
#include "colonies/connection.h"
#include "colonies/cron/v1/cron_service.pb.h"
#include "colonies/cron/v1/generator_service.pb.h"
#include "lines.h"
#include "worker.h"

namespace {

using google::protobuf::Message;
using google::protobuf::MethodDescriptor;

constexpr const char* LANGUAGE = "cpp";

// ---- messages of any type

struct Method {
  std::string path;
  const MethodDescriptor* descriptor;

  explicit Method(const std::string& given) : path(given) {
    std::string name = given.substr(given.empty() ? 0 : 1);
    for (auto& each : name) each = each == '/' ? '.' : each;
    descriptor = google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(name);
    if (descriptor == nullptr) throw colonies::Refused("there is no method " + given);
  }
};

std::unique_ptr<Message> made(const google::protobuf::Descriptor* type) {
  return std::unique_ptr<Message>(google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

grpc::ByteBuffer request_of(const Method& method, const Json& json) {
  const auto message = made(method.descriptor->input_type());
  const auto parsed = google::protobuf::util::JsonStringToMessage(json.dump(), message.get());
  if (!parsed.ok()) throw colonies::Refused("the request: " + parsed.ToString());
  const grpc::Slice bytes(message->SerializeAsString());
  return grpc::ByteBuffer(&bytes, 1);
}

Line json_of(const google::protobuf::Descriptor* type, grpc::ByteBuffer& bytes) {
  const auto message = made(type);
  grpc::ProtoBufferReader reader(&bytes);
  std::string json;
  if (!message->ParseFromZeroCopyStream(&reader) || !google::protobuf::util::MessageToJsonString(*message, &json).ok()) {
    throw std::runtime_error("this is no " + type->full_name());
  }
  return Line::parse(json);
}

// ---- streams

// A server stream. All calls are made by gRPC's generic stub, and signed on their way by the SDK's channel.
class Stream {
 public:
  Stream(std::string name, std::shared_ptr<colonies::Connection> connection, const Method& method, grpc::ByteBuffer request)
      : name_(std::move(name)), thread_([this, connection = std::move(connection), method, request = std::move(request)] {
          read(*connection, method, request);
        }) {}
  ~Stream() {
    end();
    thread_.join();
  }
  void end() { cancellation_.cancel(); }

 private:
  void read(colonies::Connection& connection, const Method& method, const grpc::ByteBuffer& request) {
    const auto once = [&](grpc::ClientContext& context) {
      grpc::CompletionQueue queue;
      grpc::GenericStub stub(connection.channel());
      // The metadata goes with the message, so that it can be signed.
      context.set_initial_metadata_corked(true);
      const auto call = stub.PrepareCall(&context, method.path, &queue);
      const auto finished = [&queue] {
        void* tag = nullptr;
        bool good = false;
        return queue.Next(&tag, &good) && good;
      };
      call->StartCall(nullptr);  // sends nothing by itself, so nothing is finished by it
      call->WriteLast(request, grpc::WriteOptions(), nullptr);
      bool good = finished();
      grpc::ByteBuffer message;
      while (good) {
        call->Read(&message, nullptr);
        good = finished();
        if (good) {
          write({{"event", "message"}, {"stream", name_}, {"message", json_of(method.descriptor->output_type(), message)}});
        }
      }
      grpc::Status status;
      call->Finish(&status, nullptr);
      finished();
      return status;
    };
    const grpc::Status status = connection.attempt(once, {std::nullopt, colonies::Milliseconds(0), &cancellation_});
    Line event = {{"event", "end"}, {"stream", name_}};
    const bool told = status.error_code() == grpc::StatusCode::CANCELLED && cancellation_.cancelled();
    if (!status.ok() && !told) event["error"] = described(colonies::Error(status));
    write(event);
  }

  const std::string name_;
  colonies::Cancellation cancellation_;
  std::thread thread_;
};

// ---- commands

class Driver {
 public:
  void serve() {
    std::vector<std::thread> calls;
    for (std::string line; std::getline(std::cin, line);) {
      const Json command = Json::parse(line);
      // Calls overlap; all else is quick, and keeps its order.
      if (command.at("do") == "call") {
        calls.emplace_back([this, command, connection = connection_] { answer(command, connection); });
      } else {
        answer(command, connection_);
      }
    }
    for (auto& [name, worker] : workers_) worker->stop();
    for (auto& [name, worker] : workers_) worker->wait();
    for (auto& worker : ended_) worker->wait();
    streams_.clear();
    for (auto& call : calls) call.join();
  }

 private:
  using ConnectionPtr = std::shared_ptr<colonies::Connection>;

  void answer(const Json& command, const ConnectionPtr& connection) {
    Line line = {{"id", command.at("id")}};
    const auto fail = [&line](Line error) { line["error"] = std::move(error); };
    try {
      line["result"] = result_of(command.at("do"), command, connection);
    } catch (const colonies::Error& error) {
      fail(described(error));
    } catch (const colonies::Refused& refused) {
      fail(plain_error("REFUSED", refused.what()));
    } catch (const UnknownCommand&) {
      fail(plain_error("UNKNOWN_COMMAND", "this driver knows no such command"));
    } catch (const std::exception& error) {
      fail(plain_error("DRIVER", error.what()));
    }
    write(line);
  }

  struct UnknownCommand {};

  Line result_of(const std::string& what, const Json& given, const ConnectionPtr& connection) {
    if (what == "hello") return {{"language", LANGUAGE}, {"version", "C++17, g++ " __VERSION__}};
    if (what == "encode" || what == "decode") return value(what, given);
    if (what == "identity" || what == "sign_call" || what == "prove_join" || what == "prove_rotation") return signature(what, given);
    if (what == "connect") return connect(given);
    if (what == "call") return call(given, connection);
    if (what == "stream") return stream(given, connection);
    if (what == "end_stream") {
      streams_.at(given.at("stream"))->end();
    } else if (what == "start_executor") {
      connected(connection);
      auto& worker = workers_[given.at("executor")];
      if (worker && !worker->ended()) throw colonies::Refused("such an executor is running");
      if (worker) ended_.push_back(std::move(worker));
      worker = std::make_unique<Worker>(given.at("executor"), connection, given);
      worker->start();
    } else if (what == "release") {
      workers_.at(given.at("executor"))->release(given);
    } else if (what == "stop_executor") {
      workers_.at(given.at("executor"))->stop();
    } else {
      throw UnknownCommand();
    }
    return Line::object();
  }

  static std::string text(const Json& given, const char* name) { return given.at(name).get<std::string>(); }
  static std::string unhexed(const Json& given, const char* name) { return colonies::from_hex(text(given, name)); }

  static Line value(const std::string& what, const Json& given) {
    if (what == "encode") {
      colonies::Value json;
      if (given.contains("json")) json.set_data(text(given, "json"));
      const auto made = colonies::encode(given.contains("json") ? colonies::decode(json) : colonies::bytes(unhexed(given, "bytes")));
      return {{"media_type", made.media_type()}, {"data", colonies::to_hex(made.data())}};
    }
    colonies::Value value;
    value.set_media_type(text(given, "media_type"));
    value.set_data(unhexed(given, "data"));
    const bool json = is_json(value);
    if (!json && value.media_type() != "application/octet-stream") {
      return {{"media_type", value.media_type()}, {"bytes", colonies::to_hex(value.data())}};
    }
    const Json decoded = colonies::decode(value);
    if (json) return {{"json", decoded.dump()}};
    const auto& bytes = decoded.get_binary();
    return {{"bytes", colonies::to_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()})}};
  }

  static Line signature(const std::string& what, const Json& given) {
    const colonies::PrivateKey key(unhexed(given, "seed"));
    if (what == "identity") return {{"public_key", colonies::to_hex(key.public_key())}, {"identity", key.identity()}};
    const std::int64_t time_ms = given.at("time_ms");
    if (what == "sign_call") {
      std::string body;
      const std::string part = unhexed(given, "body");
      for (auto times = given.at("body_times").get<std::uint64_t>(); times > 0; --times) body += part;
      const auto made = colonies::sign_call(key, text(given, "method"), text(given, "audience"), body, time_ms, text(given, "nonce"));
      return {{"metadata", std::map<std::string, std::string>(made.metadata.begin(), made.metadata.end())}, {"digest", made.digest}};
    }
    const auto made = what == "prove_join"
                          ? colonies::prove_join(key, text(given, "audience"), text(given, "colony"), text(given, "role"),
                                                 text(given, "name"), time_ms)
                          : colonies::prove_rotation(key, text(given, "audience"), text(given, "colony"), text(given, "old_key"),
                                                     time_ms);
    return {{"signature", colonies::to_hex(made)}};
  }

  Line connect(const Json& given) {
    colonies::Settings settings;
    const std::string address = text(given, "address");
    const auto colon = address.rfind(':');
    if (colon == std::string::npos) throw colonies::Refused("the address has no port");
    settings.host = address.substr(0, colon);
    settings.port = std::stoi(address.substr(colon + 1));
    settings.cluster = text(given, "cluster");
    settings.colony = text(given, "colony");
    settings.ca_file = given.value("ca_file", "");
    connection_ = std::make_shared<colonies::Connection>(settings, colonies::PrivateKey(unhexed(given, "seed")));
    return Line::object();
  }

  static void connected(const ConnectionPtr& connection) {
    if (!connection) throw colonies::Refused("connect first");
  }

  static Line call(const Json& given, const ConnectionPtr& connection) {
    connected(connection);
    const Method method(text(given, "method"));
    const auto request = request_of(method, given.at("request"));
    grpc::GenericStub stub(connection->channel());
    grpc::ByteBuffer response;
    const auto once = [&](grpc::ClientContext& context) {
      std::promise<grpc::Status> status;
      stub.UnaryCall(&context, method.path, {}, &request, &response, [&status](grpc::Status made) { status.set_value(made); });
      return status.get_future().get();
    };
    colonies::CallOptions options;
    if (given.contains("timeout_ms")) options.timeout = options.retry_for = colonies::Milliseconds(given.at("timeout_ms"));
    connection->repeat(once, options);
    return {{"response", json_of(method.descriptor->output_type(), response)}};
  }

  Line stream(const Json& given, const ConnectionPtr& connection) {
    connected(connection);
    const Method method(text(given, "method"));
    auto request = request_of(method, given.at("request"));
    auto& stream = streams_[text(given, "stream")];
    stream.reset();  // an earlier one of this name
    stream = std::make_unique<Stream>(text(given, "stream"), connection, method, std::move(request));
    return Line::object();
  }

  ConnectionPtr connection_;
  std::map<std::string, std::unique_ptr<Stream>> streams_;
  std::map<std::string, std::unique_ptr<Worker>> workers_;
  // Earlier ones, whose names others have now.
  std::vector<std::unique_ptr<Worker>> ended_;
};

}  // namespace

int main() {
  // Generated messages are known to the pool once something of their files is used.
  colonies::auth::v1::GetColonyRequest::descriptor();
  colonies::cron::v1::AddCronRequest::descriptor();
  colonies::cron::v1::FlushGeneratorRequest::descriptor();
  colonies::registry::v1::GetExecutorRequest::descriptor();
  colonies::scheduler::v1::GetProcessRequest::descriptor();
  Driver().serve();
  return 0;
}
