package colonies

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/BurntSushi/toml"
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
	// The file of the caller's key, for LoadKey.
	KeyFile string
	// "on", "off", or empty: on if there is a file for it, else plaintext, which is refused to another machine.
	TLS string
	// Certificates to trust (PEM); without it those that this machine trusts.
	CAFile string
	// The client's own certificate and its key (PEM), for a front door that asks for one. Read anew for each connection.
	CertFile    string
	CertKeyFile string
}

// profile is an entry of the file that `colonies up` and `colonies profile` write.
type profile struct {
	Host        string `toml:"host"`
	Port        int    `toml:"port"`
	Cluster     string `toml:"cluster"`
	Colony      string `toml:"colony"`
	KeyFile     string `toml:"key_file"`
	TLS         *bool  `toml:"tls"`
	CAFile      string `toml:"ca_file"`
	CertFile    string `toml:"cert_file"`
	CertKeyFile string `toml:"cert_key_file"`
}

// SettingsFromEnv reads COLONIES_HOST (default localhost), COLONIES_PORT (default 50080), COLONIES_CLUSTER, COLONIES_COLONY,
// COLONIES_KEY_FILE, COLONIES_TLS ("on" or "off"), COLONIES_CA_FILE, COLONIES_CERT_FILE and COLONIES_CERT_KEY_FILE. What is not
// set is as the profile says that COLONIES_PROFILE names, or the default one, in COLONIES_CONFIG or
// ~/.config/colonies/profiles.toml.
func SettingsFromEnv() (Settings, error) {
	saved, err := savedProfile()
	if err != nil {
		return Settings{}, err
	}
	port := envOr("COLONIES_PORT", strconv.Itoa(saved.Port))
	if number, err := strconv.Atoi(port); err != nil || number < 1 || number > 65535 {
		return Settings{}, fmt.Errorf("COLONIES_PORT is %q: a port is a number from 1 to 65535", port)
	}
	settings := Settings{
		Address:     net.JoinHostPort(envOr("COLONIES_HOST", saved.Host), port),
		Cluster:     envOr("COLONIES_CLUSTER", saved.Cluster),
		Colony:      envOr("COLONIES_COLONY", saved.Colony),
		KeyFile:     envOr("COLONIES_KEY_FILE", saved.KeyFile),
		TLS:         os.Getenv("COLONIES_TLS"),
		CAFile:      envOr("COLONIES_CA_FILE", saved.CAFile),
		CertFile:    envOr("COLONIES_CERT_FILE", saved.CertFile),
		CertKeyFile: envOr("COLONIES_CERT_KEY_FILE", saved.CertKeyFile),
	}
	overridden := os.Getenv("COLONIES_CA_FILE") != "" || os.Getenv("COLONIES_CERT_FILE") != ""
	// That a network may be trusted with plaintext was said of the profile's own host.
	elsewhere := saved.TLS != nil && !*saved.TLS && envOr("COLONIES_HOST", saved.Host) != saved.Host
	if settings.TLS == "" && saved.TLS != nil && !overridden && !elsewhere {
		settings.TLS = map[bool]string{true: "on", false: "off"}[*saved.TLS]
	}
	if settings.Colony == "" {
		return Settings{}, errors.New("no colony to work in: start a server here with `colonies up`, or set COLONIES_COLONY, COLONIES_CLUSTER and COLONIES_HOST")
	}
	return settings, settings.check()
}

// savedProfile is what the profile file says; without one, the defaults.
func savedProfile() (profile, error) {
	saved := profile{Host: "localhost", Port: 50080}
	var file struct {
		Default  string                    `toml:"default"`
		Profiles map[string]toml.Primitive `toml:"profiles"`
	}
	path, err := configFile()
	if err != nil {
		return saved, err
	}
	read, err := toml.DecodeFile(path, &file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return saved, fmt.Errorf("cannot read the profile file %s: %w", path, err)
	}
	name := envOr("COLONIES_PROFILE", file.Default)
	entry, known := file.Profiles[name]
	if name == "" || (!known && os.Getenv("COLONIES_PROFILE") == "") {
		return saved, nil
	}
	if !known {
		return saved, fmt.Errorf("there is no profile %q in %s", name, path)
	}
	if err := read.PrimitiveDecode(entry, &saved); err != nil {
		return saved, fmt.Errorf("cannot read the profile %q in %s: %w", name, path, err)
	}
	return saved, nil
}

func configFile() (string, error) {
	if path := os.Getenv("COLONIES_CONFIG"); path != "" {
		return path, nil
	}
	// A service may have no home, and then says where this is.
	folder := os.Getenv("XDG_CONFIG_HOME")
	if folder == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no folder for keys and profiles: set XDG_CONFIG_HOME: %w", err)
		}
		folder = filepath.Join(home, ".config")
	}
	return filepath.Join(folder, "colonies", "profiles.toml"), nil
}

// LoadKey is the key that COLONIES_KEY holds, or else the one in KeyFile.
func (s Settings) LoadKey() (PrivateKey, error) {
	if text := os.Getenv("COLONIES_KEY"); text != "" {
		return KeyFromHex(text)
	}
	if s.KeyFile == "" {
		return PrivateKey{}, errors.New("no key to sign with: set COLONIES_KEY_FILE to a file with 64 hex digits, mode 0600")
	}
	return LoadKey(s.KeyFile)
}

// ExecutorKey is the key of an executor of this name: a file of its own next to the profiles, made at the first start.
func (s Settings) ExecutorKey(name string) (PrivateKey, error) {
	config, err := configFile()
	if err != nil {
		return PrivateKey{}, err
	}
	return LoadOrCreateKey(filepath.Join(filepath.Dir(config), "executors", s.Colony, name+".key"))
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
