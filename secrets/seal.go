package secrets

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"dunnage/spec"
)

// What is sealed: one byte that names the format, the salt, and what AES-256-GCM
// makes of the value. The key is used once, since the salt is random, so that
// the nonce can be zeros.
const (
	sealFormat = 1
	saltSize   = 32
)

// What a key is derived for is told to HKDF, so that no derived key has two uses.
const (
	forValue   = "dunnage secret value 1"
	forDataKey = "dunnage data key 1"
	forCheck   = "dunnage key check 1"
)

var errSealed = errors.New("what is sealed was damaged, exchanged, or sealed with another key")

// seal encrypts the value under a key made of k, bound to use and about.
func seal(k *key, use string, about, value []byte) ([]byte, error) {
	out := make([]byte, 1+saltSize, 1+saltSize+len(value)+16)
	out[0] = sealFormat
	rand.Read(out[1:])
	aead, err := derive(k, use, out[1:])
	if err != nil {
		return nil, err
	}
	return aead.Seal(out, make([]byte, aead.NonceSize()), value, about), nil
}

// unseal gives what seal was given, or errSealed.
func unseal(k *key, use string, about, sealed []byte) ([]byte, error) {
	if len(sealed) < 1+saltSize || sealed[0] != sealFormat {
		return nil, errSealed
	}
	aead, err := derive(k, use, sealed[1:1+saltSize])
	if err != nil {
		return nil, err
	}
	value, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed[1+saltSize:], about)
	if err != nil {
		return nil, errSealed
	}
	return value, nil
}

func derive(k *key, use string, salt []byte) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, k.bytes(), salt, use, keySize)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	defer clear(derived)
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	return cipher.NewGCM(block)
}

// check is SecretKey.Check of an outer key: it tells the key from others, and
// nothing about it.
func check(k *key, store string) ([]byte, error) {
	derived, err := hkdf.Key(sha256.New, k.bytes(), nil, forCheck, keySize)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	defer clear(derived)
	mac := hmac.New(sha256.New, derived)
	mac.Write([]byte(store))
	return mac.Sum(nil), nil
}

// aboutValue is the associated data of a value.
func aboutValue(store string, v spec.SecretVersion) []byte {
	return fields([]byte(store), []byte(v.Project), []byte(v.Name),
		binary.BigEndian.AppendUint64(nil, uint64(v.Version)), []byte(v.Nonce))
}

// fields joins them, each with its length before it: no two lists give the same.
func fields(all ...[]byte) []byte {
	var out []byte
	for _, f := range all {
		out = binary.BigEndian.AppendUint64(out, uint64(len(f)))
		out = append(out, f...)
	}
	return out
}
