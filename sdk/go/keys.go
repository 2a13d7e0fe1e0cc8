package colonies

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// KeyFromHex reads the 64 hex digits that stand in a key file.
func KeyFromHex(text string) (PrivateKey, error) {
	text = strings.TrimSpace(text)
	seed, err := hex.DecodeString(text)
	if err != nil || len(seed) != ed25519.SeedSize {
		return PrivateKey{}, fmt.Errorf("a private key is %d hex digits; this text is not (it has %d bytes)", 2*ed25519.SeedSize, len(text))
	}
	return KeyFromSeed(seed)
}

// LoadKey reads a key file. One that others may read is refused.
func LoadKey(path string) (PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("cannot read the key file: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return PrivateKey{}, fmt.Errorf("the key file %s can be read by others (mode %04o); run: chmod 600 %s", path, mode, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("cannot read the key file: %w", err)
	}
	key, err := KeyFromHex(string(text))
	if err != nil {
		return PrivateKey{}, fmt.Errorf("the key file %s holds no key: %w", path, err)
	}
	return key, nil
}

// LoadOrCreateKey reads a key file, and makes it (mode 0600) when there is none yet.
func LoadOrCreateKey(path string) (PrivateKey, error) {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return LoadKey(path)
	}
	key, err := NewKey()
	if err != nil {
		return PrivateKey{}, err
	}
	if err := saveKey(path, key); errors.Is(err, fs.ErrExist) {
		return LoadKey(path) // another process made it first
	} else if err != nil {
		return PrivateKey{}, fmt.Errorf("cannot write the key file: %w", err)
	}
	return key, nil
}

// saveKey writes a new file, which appears whole or not at all, so that a reader never sees half a key.
func saveKey(path string, key PrivateKey) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	scratch, err := os.CreateTemp(folder, ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(scratch.Name())
	_, err = scratch.WriteString(hex.EncodeToString(key.key.Seed()) + "\n")
	if err == nil {
		err = scratch.Sync()
	}
	if closed := scratch.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Link(scratch.Name(), path)
}
