#!/usr/bin/node
// Work that V8's compilers find worth their while: numbers, objects whose shapes change, strings,
// regular expressions, typed arrays, big integers, WebAssembly, functions made at run time.
'use strict';

function sieve(n) {
  const composite = new Uint8Array(n + 1);
  let count = 0;
  for (let i = 2; i <= n; i++) {
    if (composite[i]) continue;
    count++;
    for (let j = i * i; j <= n; j += i) composite[j] = 1;
  }
  return count;
}

function mandelbrot(size) {
  let inside = 0;
  for (let py = 0; py < size; py++) {
    for (let px = 0; px < size; px++) {
      const cx = px / size * 3 - 2, cy = py / size * 2 - 1;
      let x = 0, y = 0, n = 0;
      while (x * x + y * y < 4 && n < 100) [x, y, n] = [x * x - y * y + cx, 2 * x * y + cy, n + 1];
      if (n === 100) inside++;
    }
  }
  return inside;
}

class Point {
  constructor(x, y) { this.x = x; this.y = y; }
  plus(other) { return new Point(this.x + other.x, this.y ^ other.y); }
}

// The objects change their shape on the way, so that compiled code is thrown away and made anew.
function objects(n) {
  let p = new Point(1, 2), sum = 0;
  for (let i = 0; i < n; i++) {
    p = p.plus({ x: i % 3, y: i, ...(i > n / 2 ? { z: 1 } : {}) });
    if (i === n * 3 / 4) p.plus = (other) => new Point(this ? 0 : other.x, other.y | 0.5);
    sum = (sum + p.x * 31 + p.y) | 0;
  }
  return sum;
}

function text(n) {
  const words = [];
  for (let i = 0; i < n; i++) words.push(`k${(i * 7919) % 997}=${i.toString(36)}`);
  const found = words.join(';').match(/k(\d+)=([a-z]+\d*)/g);
  const counts = new Map();
  for (const word of found) counts.set(word.length, (counts.get(word.length) ?? 0) + 1);
  return JSON.stringify([...counts].sort((a, b) => a[0] - b[0]));
}

function big(n) {
  let a = 0n, b = 1n;
  for (let i = 0; i < n; i++) [a, b] = [b, a + b];
  return (a % 1000000007n).toString();
}

// (func $f (param i32) (result i32)): the recursive Fibonacci numbers.
function wasm(n) {
  const bytes = new Uint8Array([
    0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0,
    10, 30, 1, 28, 0, 32, 0, 65, 2, 72, 4, 127, 32, 0, 5, 32, 0, 65, 1, 107, 16, 0, 32, 0, 65, 2,
    107, 16, 0, 106, 11, 11]);
  return new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports.f(n);
}

function made(n) {
  let sum = 0;
  for (let i = 0; i < n; i++) sum = (sum + new Function('a', `return a * ${i} + ${i % 13}`)(i)) | 0;
  return sum;
}

for (let round = 1; round <= 3; round++) {
  const numbers = Float64Array.from({ length: 20000 }, (_, i) => Math.sin(i) * 1e6).sort();
  console.log(round, sieve(300000 * round), mandelbrot(100), objects(100000), text(5000));
  console.log(round, big(3000), wasm(20 + round), made(500), numbers[777].toFixed(9));
}
