// Answers the questions of conformance.py with the Go SDK, which signs, and with a verifier of its own: a JSON object a line, in and
// out.
package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"regexp"
	"strconv"

	"colonies"
	"colonies/build/authv1"
)

const (
	maxSkewMs     = 60_000
	maxProofAgeMs = 24 * 3600 * 1000
)

type question struct {
	Ask   string
	Given struct {
		Seed      string `json:"test_private_key"`
		Method    string
		Audience  string
		BodyHex   string `json:"body_hex"`
		BodyTimes int    `json:"body_times"`
		TimeMs    int64  `json:"time_ms"`
		Nonce     string
		Colony    string
		Role      string
		Name      string
		OldKey    string `json:"old_key"`
		NowMs     int64  `json:"now_ms"`
		PublicKey string `json:"public_key_hex"`
		Signature string `json:"signature_hex"`
		Metadata  [][2]string
	}
}

type answer map[string]any

// entries are the metadata of a signed call, and the form that each must have.
var entries = []struct {
	name string
	form *regexp.Regexp
}{
	{colonies.KeyHeader, regexp.MustCompile(`\A[0-9a-f]{64}\z`)},
	{colonies.TimeHeader, regexp.MustCompile(`\A(?:0|[1-9][0-9]{0,14})\z`)},
	{colonies.NonceHeader, regexp.MustCompile(`\A[0-9a-f]{32}\z`)},
	{colonies.SignatureHeader, regexp.MustCompile(`\A[0-9a-f]{128}\z`)},
}

var (
	prime = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	// The y coordinates of the eight points of small order.
	smallOrder = func() map[string]bool {
		eighth, _ := new(big.Int).SetString("2707385501144840649318225287225658788936804267575313519463743609750303402022", 10)
		one := big.NewInt(1)
		ys := []*big.Int{new(big.Int), one, eighth, new(big.Int).Sub(prime, eighth), new(big.Int).Sub(prime, one)}
		known := map[string]bool{}
		for _, y := range ys {
			known[y.String()] = true
		}
		return known
	}()
)

func main() {
	input := bufio.NewReader(os.Stdin)
	output := json.NewEncoder(os.Stdout)
	for {
		line, err := input.ReadBytes('\n')
		if err == io.EOF {
			return
		}
		must(err)
		var asked question
		must(json.Unmarshal(line, &asked))
		must(output.Encode(answerTo(asked)))
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func unhex(text string) []byte {
	raw, err := hex.DecodeString(text)
	must(err)
	return raw
}

func answerTo(asked question) answer {
	given := asked.Given
	call := colonies.CallText{
		Method: given.Method, Audience: given.Audience, TimeMs: given.TimeMs, Nonce: given.Nonce,
		Body: bytes.Repeat(unhex(given.BodyHex), given.BodyTimes),
	}
	join := colonies.JoinText{
		Audience: given.Audience, Colony: given.Colony, Role: given.Role, Name: given.Name, TimeMs: given.TimeMs,
	}
	rotation := colonies.RotationText{Audience: given.Audience, Colony: given.Colony, OldKey: given.OldKey, TimeMs: given.TimeMs}
	switch asked.Ask {
	case "check_call":
		return checkCall(given.Metadata, call, given.NowMs)
	case "check_join":
		return checkProof(asked, join.Bytes)
	case "check_rotation":
		return checkProof(asked, rotation.Bytes)
	}
	key, err := colonies.KeyFromHex(given.Seed)
	must(err)
	made := answer{}
	switch asked.Ask {
	case "identity":
		made["public_key_hex"] = hex.EncodeToString(key.PublicKey())
	case "sign_call":
		made, err = signCall(key, call)
	case "sign_join":
		proof, failure := key.ProveJoin(join)
		made, err = proofAnswer(proof, join.Bytes), failure
	case "sign_rotation":
		proof, failure := key.ProveRotation(rotation)
		made, err = proofAnswer(proof, rotation.Bytes), failure
	default:
		err = fmt.Errorf("what is %q?", asked.Ask)
	}
	if errors.Is(err, colonies.ErrNotSignable) {
		return answer{"refused": true}
	}
	must(err)
	made["identity"] = key.Identity()
	return made
}

func signCall(key colonies.PrivateKey, call colonies.CallText) (answer, error) {
	signed, err := key.SignCall(call)
	if err != nil {
		return nil, err
	}
	metadata := [][2]string{}
	for at := 0; at < len(signed.Metadata); at += 2 {
		metadata = append(metadata, [2]string{signed.Metadata[at], signed.Metadata[at+1]})
	}
	text, err := call.Bytes()
	return answer{"text": string(text), "metadata": metadata, "digest": signed.Digest}, err
}

func proofAnswer(proof *authv1.JoinProof, textOf func() ([]byte, error)) answer {
	if proof == nil {
		return nil
	}
	text, err := textOf()
	must(err)
	return answer{
		"text":           string(text),
		"public_key_hex": hex.EncodeToString(proof.PublicKey),
		"signature_hex":  hex.EncodeToString(proof.Signature),
	}
}

// isSound tells whether a point is encoded in the one right way, as far as its y shows it, and is not of small order.
func isSound(encoded []byte) bool {
	reversed := make([]byte, len(encoded))
	for index, octet := range encoded {
		reversed[len(encoded)-1-index] = octet
	}
	reversed[0] &= 0x7f
	y := new(big.Int).SetBytes(reversed)
	return y.Cmp(prime) < 0 && !smallOrder[y.String()]
}

// signed tells whether a key signed a text. Go's own check refuses an S that is not below L, and a second encoding of R.
func signed(publicKey, signature []byte, text []byte) bool {
	return len(publicKey) == ed25519.PublicKeySize && len(signature) == ed25519.SignatureSize &&
		isSound(publicKey) && isSound(signature[:32]) && ed25519.Verify(publicKey, text, signature)
}

func checkCall(metadata [][2]string, call colonies.CallText, nowMs int64) answer {
	values := map[string][]string{}
	for _, entry := range metadata {
		values[entry[0]] = append(values[entry[0]], entry[1])
	}
	for _, entry := range entries {
		if len(values[entry.name]) == 0 && len(values[entry.name+"-bin"]) == 0 {
			return answer{"error": "SIGNATURE_MISSING"}
		}
	}
	for _, entry := range entries {
		given := values[entry.name]
		if len(given) != 1 || len(values[entry.name+"-bin"]) > 0 || !entry.form.MatchString(given[0]) {
			return answer{"error": "SIGNATURE_MALFORMED"}
		}
	}
	timeMs, err := strconv.ParseInt(values[colonies.TimeHeader][0], 10, 64)
	must(err)
	if age := nowMs - timeMs; age > maxSkewMs || age < -maxSkewMs {
		return answer{"error": "SIGNATURE_STALE"}
	}
	call.TimeMs, call.Nonce = timeMs, values[colonies.NonceHeader][0]
	publicKey, signature := unhex(values[colonies.KeyHeader][0]), unhex(values[colonies.SignatureHeader][0])
	text, err := call.Bytes()
	// What holds a line feed is signed by nobody.
	if err != nil || !signed(publicKey, signature, text) {
		return answer{"error": "SIGNATURE_INVALID"}
	}
	return answer{"identity": colonies.IdentityOf(publicKey), "digest": colonies.CallDigest(text, publicKey, signature)}
}

func checkProof(asked question, textOf func() ([]byte, error)) answer {
	given := asked.Given
	if age := given.NowMs - given.TimeMs; age < -maxSkewMs || age > maxProofAgeMs {
		return answer{"error_field": "time_ms"}
	}
	publicKey := unhex(given.PublicKey)
	text, err := textOf()
	if err != nil || !signed(publicKey, unhex(given.Signature), text) {
		return answer{"error_field": "signature"}
	}
	return answer{"identity": colonies.IdentityOf(publicKey)}
}
