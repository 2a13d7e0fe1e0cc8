package colonies

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestAKeyFileIsMadeOnceAndReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "one.key")
	identities := make([]string, 8)
	var all sync.WaitGroup
	for index := range identities {
		index := index
		all.Add(1)
		go func() {
			defer all.Done()
			key, err := LoadOrCreateKey(path)
			if err != nil {
				t.Error(err)
				return
			}
			identities[index] = key.Identity()
		}()
	}
	all.Wait()
	for _, identity := range identities {
		if identity != identities[0] {
			t.Errorf("%s and %s", identity, identities[0])
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestBadKeyFilesAreRefused(t *testing.T) {
	folder := t.TempDir()
	for name, one := range map[string]struct {
		text string
		mode os.FileMode
		says string
	}{
		"open":  {strings.Repeat("ab", 32), 0o640, "chmod 600"},
		"short": {strings.Repeat("ab", 31), 0o600, "64 hex digits"},
		"words": {strings.Repeat("xy", 32), 0o600, "64 hex digits"},
	} {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(one.text), one.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreateKey(path); err == nil || !strings.Contains(err.Error(), one.says) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), one.text) {
			t.Errorf("%s: the error tells the key", name)
		}
	}
	if _, err := LoadKey(filepath.Join(folder, "none")); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestAKeyIsNeverShown(t *testing.T) {
	seed := strings.Repeat("ab", 32)
	key, err := KeyFromHex(seed)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(seed)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		shown := fmt.Sprintf(format, key)
		if strings.Contains(shown, seed) || strings.Contains(shown, fmt.Sprint(raw[:4])[1:]) {
			t.Errorf("%s shows %s", format, shown)
		}
	}
}

// environment sets these variables and no others of ours.
func environment(t *testing.T, variables ...string) {
	for _, entry := range os.Environ() {
		if name := strings.SplitN(entry, "=", 2)[0]; strings.HasPrefix(name, "COLONIES_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("COLONIES_CONFIG", filepath.Join(t.TempDir(), "profiles.toml"))
	for _, entry := range variables {
		parts := strings.SplitN(entry, "=", 2)
		t.Setenv("COLONIES_"+parts[0], parts[1])
	}
}

func TestSettingsComeFromTheEnvironment(t *testing.T) {
	environment(t, "CLUSTER=c", "COLONY=dev")
	settings, err := SettingsFromEnv()
	if err != nil || settings.Address != "localhost:50080" || settings.usesTLS() {
		t.Errorf("%v, %v", settings, err)
	}
	environment(t, "HOST=::1", "PORT=1", "CLUSTER=c", "COLONY=dev", "TLS=on")
	settings, err = SettingsFromEnv()
	if err != nil || settings.Address != "[::1]:1" || !settings.usesTLS() {
		t.Errorf("%v, %v", settings, err)
	}
	environment(t, "HOST=far.example", "CLUSTER=c", "COLONY=dev", "TLS=off", "CA_FILE=x")
	if settings, err = SettingsFromEnv(); err != nil || settings.usesTLS() {
		t.Errorf("%v, %v", settings, err)
	}
}

const profiles = `default = "local"

[profiles."local"]
host = "127.0.0.1"
port = 50090
cluster = "local-1"
colony = "dev"
key_file = "/keys/user.key"
owner_key_file = "/keys/owner.key"
tls = true
ca_file = "/ca.crt"

[profiles."far"]
host = "far.example"
cluster = "far-1"
colony = "one"
`

func TestSettingsComeFromAProfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "profiles.toml")
	if err := os.WriteFile(file, []byte(profiles), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		variables []string
		settings  Settings
	}{
		{nil, Settings{"127.0.0.1:50090", "local-1", "dev", "/keys/user.key", "on", "/ca.crt", "", ""}},
		{[]string{"PORT=2", "COLONY=other", "TLS=off"}, Settings{"127.0.0.1:2", "local-1", "other", "/keys/user.key", "off", "/ca.crt", "", ""}},
		{[]string{"PROFILE=far", "TLS=on"}, Settings{"far.example:50080", "far-1", "one", "", "on", "", "", ""}},
		{[]string{"PROFILE=far", "CA_FILE=x"}, Settings{"far.example:50080", "far-1", "one", "", "", "x", "", ""}},
	} {
		environment(t, append(one.variables, "CONFIG="+file)...)
		if settings, err := SettingsFromEnv(); err != nil || settings != one.settings {
			t.Errorf("%v: %+v, %v", one.variables, settings, err)
		}
	}
	// A profile's plaintext is for its own host.
	plain := strings.Replace(profiles, "tls = true\nca_file = \"/ca.crt\"", "tls = false", 1)
	if err := os.WriteFile(file, []byte(plain), 0o600); err != nil {
		t.Fatal(err)
	}
	environment(t, "CONFIG="+file)
	if settings, err := SettingsFromEnv(); err != nil || settings.TLS != "off" {
		t.Errorf("%v, %v", settings, err)
	}
	environment(t, "CONFIG="+file, "HOST=far.example")
	if _, err := SettingsFromEnv(); err == nil || !strings.Contains(err.Error(), "plaintext to far.example") {
		t.Errorf("%v", err)
	}
	environment(t, "CONFIG="+file, "PROFILE=nobody")
	if _, err := SettingsFromEnv(); err == nil || !strings.Contains(err.Error(), `no profile "nobody"`) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(file, []byte("default = 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := SettingsFromEnv(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("%v", err)
	}
}

func TestAServiceWithoutAHomeKeepsItsKeyWhereItIsTold(t *testing.T) {
	environment(t, "CLUSTER=c", "COLONY=dev", "CONFIG=")
	folder := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", folder)
	t.Setenv("HOME", "")
	settings, err := SettingsFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := settings.ExecutorKey("e1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(folder, "colonies", "executors", "dev", "e1.key")); err != nil {
		t.Error(err)
	}
	t.Setenv("XDG_CONFIG_HOME", "")
	if _, err := SettingsFromEnv(); err == nil || !strings.Contains(err.Error(), "XDG_CONFIG_HOME") {
		t.Errorf("%v", err)
	}
}

func TestSettingsThatCannotBeUsedAreRefused(t *testing.T) {
	for _, one := range []struct {
		says      string
		variables []string
	}{
		{"COLONIES_CLUSTER", []string{"COLONY=dev"}},
		{"COLONIES_COLONY", []string{"CLUSTER=c"}},
		{"COLONIES_PORT", []string{"CLUSTER=c", "COLONY=dev", "PORT=65536"}},
		{"COLONIES_TLS", []string{"CLUSTER=c", "COLONY=dev", "TLS=yes"}},
		{"belong together", []string{"CLUSTER=c", "COLONY=dev", "CERT_FILE=x"}},
		{"plaintext to far.example", []string{"CLUSTER=c", "COLONY=dev", "HOST=far.example"}},
	} {
		environment(t, one.variables...)
		if _, err := SettingsFromEnv(); err == nil || !strings.Contains(err.Error(), one.says) {
			t.Errorf("%v: %v", one.variables, err)
		}
	}
}

func TestACAFileMustHoldCertificates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	settings := Settings{Address: "far.example:1", Cluster: "c", CAFile: path}
	if _, err := settings.transport(); err == nil {
		t.Error("a file that is not there was read")
	}
	if err := os.WriteFile(path, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := settings.transport(); err == nil || !strings.Contains(err.Error(), "no certificate in PEM") {
		t.Errorf("%v", err)
	}
}
