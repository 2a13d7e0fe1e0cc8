// How a program finds its server, its colony and its key.
#pragma once

#include <optional>
#include <string>

namespace colonies {

struct Settings {
  std::string host = "localhost";
  int port = 50080;
  // The server's id, the audience of every signature; `colonies status` tells it.
  std::string cluster;
  std::string colony;
  // The file of the caller's private key: 64 hex digits, mode 0600.
  std::string key_file;
  // Unset: with TLS if there is a file for it.
  std::optional<bool> tls;
  // Certificates to trust (PEM). Empty: the public ones.
  std::string ca_file;
  // The own certificate and its key, for a front door that asks for one.
  std::string cert_file;
  std::string cert_key_file;

  // From COLONIES_HOST, COLONIES_PORT, COLONIES_CLUSTER, COLONIES_COLONY, COLONIES_KEY_FILE, COLONIES_TLS ("on" or "off"),
  // COLONIES_CA_FILE, COLONIES_CERT_FILE and COLONIES_CERT_KEY_FILE. Throws Refused if one of them makes no sense.
  static Settings from_env();

  // Throws Refused if there is no cluster or no colony, without which no call can be made.
  void check() const;
  // "host:port".
  std::string address() const;
  // Throws Refused for plaintext to another machine, unless `tls` says so: whoever sits between could read it.
  bool uses_tls() const;
};

// Where an executor keeps its key if nobody says: executors/<colony>/<name>.key in $XDG_CONFIG_HOME/colonies or
// ~/.config/colonies.
std::string executor_key_file(const std::string& colony, const std::string& name);

}  // namespace colonies
