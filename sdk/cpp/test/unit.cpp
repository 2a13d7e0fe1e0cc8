// The parts of the SDK that need no server. Signatures are held to protos/vectors by tests/conformance/signatures, and all else
// to the services by tests/conformance.

#include <sys/stat.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <thread>

#include "colonies/connection.h"
#include "colonies/error.h"
#include "colonies/executor.h"
#include "colonies/settings.h"
#include "colonies/signing.h"
#include "colonies/status/v1/status.pb.h"
#include "colonies/values.h"

namespace {

using namespace colonies;

int failures = 0;

void check(bool good, const char* what, int line) {
  if (good) return;
  ++failures;
  std::fprintf(stderr, "line %d: not so: %s\n", line, what);
}
#define CHECK(condition) check((condition), #condition, __LINE__)

// Whether something is refused, with a text that has this in it.
template <class Attempt>
bool refused(Attempt attempt, const std::string& with = "") {
  try {
    attempt();
    return false;
  } catch (const Refused& error) {
    return std::string(error.what()).find(with) != std::string::npos;
  }
}

Value value_of(const std::string& data, const std::string& media_type = "") {
  Value value;
  value.set_data(data);
  value.set_media_type(media_type);
  return value;
}

void values_are_the_shortest_json() {
  const auto text = [](const Json& json) { return encode(json).data(); };
  CHECK(text(nullptr) == "null");
  CHECK(text(1) == "1");
  CHECK(text(std::numeric_limits<std::int64_t>::min()) == "-9223372036854775808");
  CHECK(text(std::numeric_limits<std::uint64_t>::max()) == "18446744073709551615");
  CHECK(text(1.5) == "1.5");
  CHECK(text({1, "a", {{"b", nullptr}}}) == R"([1,"a",{"b":null}])");
  CHECK(text("\xc3\xa4\n\"\\/\x01\x7f") == "\"\xc3\xa4\\n\\\"\\\\/\\u0001\x7f\"");
  CHECK(encode(1).media_type().empty());
  CHECK(encode(bytes({"\0\xff", 2})).data() == std::string("\0\xff", 2));
  CHECK(encode(bytes("")).media_type() == "application/octet-stream");
  CHECK(refused([] { encode(std::nan("")); }, "finite"));
  CHECK(refused([] { encode({1, std::numeric_limits<double>::infinity()}); }, "finite"));
  CHECK(refused([] { encode("\xff"); }));
  CHECK(refused([] { encode(Json::array({bytes("x")})); }, "bytes"));
}

void values_are_read_exactly() {
  const auto read = [](const std::string& data) { return decode(value_of(data)); };
  CHECK(read(" [1, 2.0] ") == Json({1, 2.0}));
  CHECK(read("9223372036854775807").get<std::int64_t>() == std::numeric_limits<std::int64_t>::max());
  CHECK(read("18446744073709551615").get<std::uint64_t>() == std::numeric_limits<std::uint64_t>::max());
  CHECK(refused([&] { read("18446744073709551616"); }, "64 bits"));
  CHECK(refused([&] { read("{\"a\":[-9223372036854775809]}"); }, "64 bits"));
  for (const std::string wrong : {"", "{", "nul", "[1,]", "1 2", "NaN", "\"\xff\"", "1e999"}) CHECK(refused([&] { read(wrong); }, "JSON"));
  CHECK(read(std::string(1'000, '[') + std::string(1'000, ']')).is_array());
  CHECK(refused([&] { read(std::string(1'001, '[') + std::string(1'001, ']')); }, "levels"));
  CHECK(refused([&] { read(std::string(4'000'000, '[')); }, "levels"));
  CHECK(decode(value_of("{}", "application/json")).is_object());
  CHECK(decode(value_of("\xff", "application/octet-stream")) == bytes("\xff"));
  CHECK(refused([] { decode(value_of("x", "text/plain")); }, "text/plain"));
}

void errors_have_the_details_of_the_server() {
  namespace pb = colonies::status::v1;
  pb::Status details;
  const auto add = [&details](const std::string& name, const google::protobuf::Message& detail) {
    auto& any = *details.add_details();
    any.set_type_url("type.googleapis.com/google.rpc." + name);
    any.set_value(detail.SerializeAsString());
  };
  pb::ErrorInfo info;
  info.set_reason("RATE_LIMITED");
  (*info.mutable_metadata())["process_id"] = "p";
  add("ErrorInfo", info);
  pb::BadRequest bad;
  bad.add_field_violations()->set_field("specs[0].priority");
  add("BadRequest", bad);
  pb::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(2);
  retry.mutable_retry_delay()->set_nanos(500'000'000);
  add("RetryInfo", retry);
  const Error error({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many", details.SerializeAsString()});
  CHECK(std::string(error.what()) == "too many" && error.reason == "RATE_LIMITED" && error.metadata.at("process_id") == "p");
  CHECK(error.fields.size() == 1 && error.fields[0].field == "specs[0].priority");
  CHECK(error.retry_delay == Milliseconds(2'500) && error.is_pace() && !error.is_outage());

  const Error bare({grpc::StatusCode::INTERNAL, "Received RST_STREAM with error code 2", "\xff\xff"});
  CHECK(bare.reason.empty() && !bare.retry_delay && bare.is_outage());
  CHECK(!Error({grpc::StatusCode::INTERNAL, "a fault"}).is_outage());
  CHECK(Error({grpc::StatusCode::UNKNOWN, "Stream removed"}).is_outage());
  CHECK(Error({grpc::StatusCode::PERMISSION_DENIED, "not a member"}).is_about_approval());
  CHECK(!Error({grpc::StatusCode::FAILED_PRECONDITION, "rejected"}).is_about_approval());
  CHECK(std::string(Error({grpc::StatusCode::UNAUTHENTICATED, ""}).what()) == "UNAUTHENTICATED");
}

void keys_are_kept_in_files_of_their_owner() {
  char pattern[] = "/tmp/colonies-unit-XXXXXX";
  const std::string folder = mkdtemp(pattern);
  const std::string path = folder + "/deep/er/a.key";
  const auto key = PrivateKey::load_or_create(path);
  struct stat facts = {};
  CHECK(stat(path.c_str(), &facts) == 0 && (facts.st_mode & 0777) == 0600);
  CHECK(PrivateKey::load_or_create(path).identity() == key.identity());
  CHECK(std::distance(std::filesystem::directory_iterator(folder + "/deep/er"), {}) == 1);
  chmod(path.c_str(), 0640);
  CHECK(refused([&] { PrivateKey::load(path); }, "chmod 600"));
  chmod(path.c_str(), 0600);
  std::ofstream(path) << "abc";
  CHECK(refused([&] { PrivateKey::load(path); }, "holds no key"));
  CHECK(refused([&] { PrivateKey::load(folder + "/none.key"); }, "cannot be read"));
  CHECK(refused([] { PrivateKey("short"); }, "32 bytes"));
  CHECK(PrivateKey::generate().identity() != PrivateKey::generate().identity());
  std::filesystem::remove_all(folder);
}

void nonces_are_new_and_have_the_prefix() {
  Signer signer(PrivateKey::generate(), "test");
  const auto nonce = [&signer] { return signer.sign("/a.B/C", "")[2].second; };
  std::set<std::string> seen;
  for (int count = 0; count < 100; ++count) seen.insert(nonce());
  CHECK(seen.size() == 100 && seen.begin()->size() == 32);
  for (const char* wrong : {"", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdeg", "0123456789abcdef0"}) {
    CHECK(!signer.use_nonce_prefix(wrong));
  }
  CHECK(signer.use_nonce_prefix("0123456789abcdef"));
  const auto one = nonce(), other = nonce();
  CHECK(one.size() == 32 && one.substr(0, 16) == "0123456789abcdef" && one != other);
  CHECK(refused([] { Signer(PrivateKey::generate(), "two\nlines"); }, "line feed"));
}

void settings_come_from_the_environment() {
  setenv("COLONIES_HOST", "::1", 1);
  setenv("COLONIES_PORT", "123", 1);
  auto settings = Settings::from_env();
  CHECK(settings.address() == "[::1]:123" && !settings.uses_tls());
  for (const char* wrong : {"0", "65536", "a", "1a", "-1", "99999999999"}) {
    setenv("COLONIES_PORT", wrong, 1);
    CHECK(refused([] { Settings::from_env(); }, "COLONIES_PORT"));
  }
  unsetenv("COLONIES_PORT");
  settings.host = "example.org";
  CHECK(refused([&] { settings.uses_tls(); }, "plaintext"));
  settings.tls = false;
  CHECK(!settings.uses_tls());
  settings.tls.reset();
  settings.ca_file = "/no/such/file";
  CHECK(settings.uses_tls());
  settings.cluster = "c";
  CHECK(refused([&] { Connection(settings, PrivateKey::generate()); }, "COLONIES_COLONY"));
  settings.colony = "dev";
  CHECK(refused([&] { Connection(settings, PrivateKey::generate()); }, "/no/such/file"));
  CHECK(refused([] { Connection(Settings(), PrivateKey::generate()); }, "COLONIES_CLUSTER"));
  setenv("COLONIES_TLS", "yes", 1);
  CHECK(refused([] { Settings::from_env(); }, "COLONIES_TLS"));
}

void executors_have_keys_of_their_own() {
  char pattern[] = "/tmp/colonies-unit-XXXXXX";
  const std::string folder = mkdtemp(pattern);
  setenv("XDG_CONFIG_HOME", folder.c_str(), 1);
  Settings settings;
  ExecutorOptions options;
  options.types = {"edge"};
  options.name = "e1";
  CHECK(refused([&] { Executor(settings, options); }, "colonies profile env"));
  CHECK(std::filesystem::is_empty(folder));
  settings.cluster = "c";
  settings.colony = "dev";
  Executor(settings, options);
  options.name = "e2";
  Executor(settings, options);
  CHECK(std::filesystem::exists(folder + "/colonies/executors/dev/e1.key"));
  CHECK(std::filesystem::exists(folder + "/colonies/executors/dev/e2.key"));
  unsetenv("XDG_CONFIG_HOME");
  std::filesystem::remove_all(folder);
}

void waits_grow_and_end() {
  Backoff backoff;
  for (const int longest : {50, 100, 200, 400, 800, 1'600, 2'000, 2'000}) {
    const auto wait = backoff.next().count();
    CHECK(wait >= longest / 2 && wait <= longest);
  }
  CHECK(backoff.next(Milliseconds(9'000)) == Milliseconds(9'000));
  Cancellation cancellation;
  CHECK(!cancellation.wait(Milliseconds(1)));
  std::thread other([&cancellation] { cancellation.cancel(); });
  CHECK(cancellation.wait(FOR_EVER));
  other.join();
  CHECK(cancellation.cancelled());
}

void arguments_fit_or_are_refused() {
  scheduler::v1::Assignment assignment;
  for (const char* text : {"3000000000", "1.5", "\"a\"", "2.0"}) *assignment.mutable_spec()->add_args() = value_of(text);
  (*assignment.mutable_spec()->mutable_kwargs())["k"] = value_of("[1,2]");
  *assignment.add_inputs() = value_of("true");
  Call call(assignment);
  CHECK(call.size() == 5 && call.arg<std::int64_t>(0) == 3'000'000'000 && call.arg<double>(1) == 1.5);
  CHECK(call.arg<std::string>(2) == "a" && call.arg<int>(3) == 2 && call.arg<bool>(4) && call.arg(4) == Json(true));
  CHECK(call.kwarg<std::vector<int>>("k") == std::vector<int>({1, 2}) && !call.kwarg<int>("none"));
  CHECK(refused([&] { call.arg<int>(0); }, "does not fit"));
  CHECK(refused([&] { call.arg<int>(1); }, "does not fit"));
  CHECK(refused([&] { call.arg(5); }, "missing"));
  CHECK(refused([&] { call.arg(-1); }, "missing"));
  const auto throws = [&call] {
    try {
      call.arg<int>(2);
      return false;
    } catch (const Json::exception&) {
      return true;
    }
  };
  CHECK(throws());
}

void outputs_are_none_one_or_several() {
  CHECK(Outputs().values().empty());
  const Outputs number = 5, text = "a", list = std::vector<int>{1, 2};
  CHECK(number.values()[0].data() == "5" && text.values()[0].data() == "\"a\"" && list.values()[0].data() == "[1,2]");
  const auto several = Outputs().add(1).add(value_of("x", "text/plain"));
  CHECK(several.values().size() == 2 && several.values()[1].media_type() == "text/plain");
}

void executors_have_bounds() {
  Settings settings;
  settings.cluster = "c";
  settings.colony = "dev";
  const auto connection = std::make_shared<Connection>(settings, PrivateKey::generate());
  const auto make = [&connection](auto change) {
    ExecutorOptions options;
    options.name = "e";
    change(options);
    Executor executor(connection, options);
    executor.function("f", [](Call&) { return Outputs(); });
    executor.function("f", [](Call&) { return Outputs(); });
  };
  CHECK(refused([&] { make([](auto&) {}); }, "a function f already"));
  CHECK(refused([&] { make([](auto& options) { options.name = "-e"; }); }, "name"));
  CHECK(refused([&] { make([](auto& options) { options.types = {}; }); }, "type"));
  CHECK(refused([&] { make([](auto& options) { options.types = {"a b"}; }); }, "a b"));
  CHECK(refused([&] { make([](auto& options) { options.concurrency = 0; }); }, "concurrency"));
  CHECK(refused([&] { make([](auto& options) { options.concurrency = 1'001; }); }, "concurrency"));
}

}  // namespace

int main() {
  values_are_the_shortest_json();
  values_are_read_exactly();
  errors_have_the_details_of_the_server();
  keys_are_kept_in_files_of_their_owner();
  nonces_are_new_and_have_the_prefix();
  executors_have_keys_of_their_own();
  settings_come_from_the_environment();
  waits_grow_and_end();
  arguments_fit_or_are_refused();
  outputs_are_none_one_or_several();
  executors_have_bounds();
  std::printf(failures == 0 ? "unit tests of the C++ SDK: all passed\n" : "unit tests of the C++ SDK: %d FAILED\n", failures);
  return failures == 0 ? 0 : 1;
}
