#include "colonies/error.h"

#include "colonies/status/v1/status.pb.h"

namespace colonies {

namespace pb = colonies::status::v1;

Error::Error(const grpc::Status& failed)
    : std::runtime_error(failed.error_message().empty() ? code_name(failed.error_code()) : failed.error_message()),
      code(failed.error_code()) {
  pb::Status details;
  // Details that are not ours add nothing: code and message still say what happened.
  if (!details.ParseFromString(failed.error_details())) return;
  for (const auto& detail : details.details()) {
    // The services pack under the names of google.rpc, whose wire format these messages have.
    const std::string name = detail.type_url().substr(detail.type_url().rfind('.') + 1);
    if (pb::ErrorInfo info; name == "ErrorInfo" && info.ParseFromString(detail.value())) {
      reason = info.reason();
      metadata = {info.metadata().begin(), info.metadata().end()};
    } else if (pb::BadRequest bad; name == "BadRequest" && bad.ParseFromString(detail.value())) {
      for (const auto& violation : bad.field_violations()) fields.push_back({violation.field(), violation.description()});
    } else if (pb::RetryInfo retry; name == "RetryInfo" && retry.ParseFromString(detail.value())) {
      const auto& delay = retry.retry_delay();
      retry_delay = std::chrono::seconds(delay.seconds()) + std::chrono::milliseconds(delay.nanos() / 1'000'000);
    }
  }
}

bool Error::is_outage() const {
  switch (code) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::CANCELLED:  // no service says so, nor UNKNOWN: a proxy or a dying server has reset the call
    case grpc::StatusCode::UNKNOWN:
      return true;
    case grpc::StatusCode::INTERNAL:  // so is a reset of the HTTP/2 stream, which only the text tells from a real fault
      return std::string(what()).find("RST_STREAM") != std::string::npos;
    default:
      return false;
  }
}

bool Error::is_pace() const {
  return code == grpc::StatusCode::RESOURCE_EXHAUSTED && (reason == "RATE_LIMITED" || reason == "TOO_MANY_STREAMS");
}

bool Error::is_about_approval() const {
  return code == grpc::StatusCode::PERMISSION_DENIED || reason == "EXECUTOR_NOT_APPROVED";
}

std::string code_name(grpc::StatusCode code) {
  static const char* const names[] = {
      "OK",           "CANCELLED",        "UNKNOWN",         "INVALID_ARGUMENT",    "DEADLINE_EXCEEDED",   "NOT_FOUND",
      "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",         "OUT_OF_RANGE",
      "UNIMPLEMENTED", "INTERNAL",         "UNAVAILABLE",     "DATA_LOSS",           "UNAUTHENTICATED"};
  return code >= 0 && code <= 16 ? names[code] : "CODE_" + std::to_string(code);
}

}  // namespace colonies
