#!/bin/sh
# OpenSSL's algorithms on known data, in both directions, and its speed run.
seq 1 20000 >data
for digest in md5 sha1 sha224 sha256 sha384 sha512 sha3-256 sha3-512 blake2b512 blake2s256 sm3 ripemd160; do
    echo "$digest $(openssl dgst -r "-$digest" data | cut -d' ' -f1)"
done
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
for cipher in aes-128-cbc aes-256-ctr aes-192-cfb camellia-256-cbc aria-256-cbc chacha20 sm4-cbc des-ede3-cbc; do
    openssl enc "-$cipher" -K "$key" -iv 000102030405060708090a0b0c0d0e0f -in data -out sealed
    openssl enc -d "-$cipher" -K "$key" -iv 000102030405060708090a0b0c0d0e0f -in sealed -out opened
    cmp -s data opened && echo "$cipher $(sha256sum <sealed | cut -d' ' -f1)"
done
for key in "RSA -pkeyopt rsa_keygen_bits:2048" "EC -pkeyopt ec_paramgen_curve:P-256" ED25519 X25519; do
    openssl genpkey -algorithm $key -out key.pem
    openssl pkey -in key.pem -check -noout
    openssl pkey -in key.pem -pubout -out public.pem
    [ "$key" = X25519 ] && continue
    openssl pkeyutl -sign -inkey key.pem -rawin -in data -out signed
    openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in data -sigfile signed
done
openssl prime -generate -bits 512 >prime
openssl prime "$(cat prime)" | sed 's/.* //'
openssl speed -seconds 1 -bytes 1024 sha256 aes-128-cbc ecdsap256 >speed 2>&1
echo "speed run ends with $?"
