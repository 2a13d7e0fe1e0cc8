package colonies

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"google.golang.org/grpc/credentials"
)

// Settings say how to reach a server, and for which colony.
type Settings struct {
	// Host and port of the server's front door.
	Address string
	// The cluster's id: the audience of every signature.
	Cluster string
	// The colony that this is about.
	Colony string
	// "on", "off", or empty: on if there is a file for it, else plaintext, which is refused to another machine.
	TLS string
	// Certificates to trust (PEM); without it those that this machine trusts.
	CAFile string
	// The client's own certificate and its key (PEM), for a front door that asks for one. Read anew for each connection.
	CertFile    string
	CertKeyFile string
}

// SettingsFromEnv reads COLONIES_HOST (default localhost), COLONIES_PORT (default 50080), COLONIES_CLUSTER, COLONIES_COLONY,
// COLONIES_TLS ("on" or "off"), COLONIES_CA_FILE, COLONIES_CERT_FILE and COLONIES_CERT_KEY_FILE.
func SettingsFromEnv() (Settings, error) {
	host, port := envOr("COLONIES_HOST", "localhost"), envOr("COLONIES_PORT", "50080")
	if number, err := strconv.Atoi(port); err != nil || number < 1 || number > 65535 {
		return Settings{}, fmt.Errorf("COLONIES_PORT is %q: a port is a number from 1 to 65535", port)
	}
	settings := Settings{
		Address:     net.JoinHostPort(host, port),
		Cluster:     os.Getenv("COLONIES_CLUSTER"),
		Colony:      os.Getenv("COLONIES_COLONY"),
		TLS:         os.Getenv("COLONIES_TLS"),
		CAFile:      os.Getenv("COLONIES_CA_FILE"),
		CertFile:    os.Getenv("COLONIES_CERT_FILE"),
		CertKeyFile: os.Getenv("COLONIES_CERT_KEY_FILE"),
	}
	if settings.Colony == "" {
		return Settings{}, errors.New("no colony to work in: set COLONIES_COLONY")
	}
	return settings, settings.check()
}

// KeyFromEnv is the key that COLONIES_KEY holds, or the one in the file that COLONIES_KEY_FILE names.
func KeyFromEnv() (PrivateKey, error) {
	if text := os.Getenv("COLONIES_KEY"); text != "" {
		return KeyFromHex(text)
	}
	if path := os.Getenv("COLONIES_KEY_FILE"); path != "" {
		return LoadKey(path)
	}
	return PrivateKey{}, errors.New("no key to sign with: set COLONIES_KEY_FILE to a file with 64 hex digits, mode 0600")
}

func envOr(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func (s Settings) check() error {
	host, _, err := net.SplitHostPort(s.Address)
	switch {
	case err != nil:
		return fmt.Errorf("the address %q is no host and port: %w", s.Address, err)
	case s.Cluster == "":
		return errors.New("the cluster id, which every signature names, is not known: set COLONIES_CLUSTER (colonies status tells it)")
	case s.TLS != "" && s.TLS != "on" && s.TLS != "off":
		return fmt.Errorf("COLONIES_TLS is %q: it is on or off", s.TLS)
	case (s.CertFile == "") != (s.CertKeyFile == ""):
		return errors.New("a certificate and its key belong together: set COLONIES_CERT_FILE and COLONIES_CERT_KEY_FILE")
	case s.TLS == "" && !s.usesTLS() && !isLoopback(host):
		return fmt.Errorf("plaintext to %s could be read on the way: set COLONIES_CA_FILE or COLONIES_TLS=on, or COLONIES_TLS=off if "+
			"that network is trusted", host)
	}
	return nil
}

func isLoopback(host string) bool {
	address := net.ParseIP(host)
	return host == "localhost" || (address != nil && address.IsLoopback())
}

func (s Settings) usesTLS() bool {
	return s.TLS == "on" || (s.TLS == "" && (s.CAFile != "" || s.CertFile != ""))
}

func (s Settings) transport() (credentials.TransportCredentials, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if !s.usesTLS() {
		return plaintext{}, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", s.CAFile)
		}
	}
	if s.CertFile != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(s.CertFile, s.CertKeyFile)
			return &pair, err
		}
	}
	return credentials.NewTLS(config), nil
}

// plaintext is no security. Which of gRPC's own names for it there are depends on gRPC's version.
type plaintext struct{}

type plaintextInfo struct{ credentials.CommonAuthInfo }

func (plaintextInfo) AuthType() string { return "plaintext" }

func (plaintext) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, plaintextInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}, nil
}

func (plaintext) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("plaintext is for clients here")
}

func (plaintext) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "plaintext"}
}

func (plaintext) Clone() credentials.TransportCredentials { return plaintext{} }

func (plaintext) OverrideServerName(string) error { return nil }
