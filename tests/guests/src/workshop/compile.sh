#!/bin/sh
# Builds Lua with gcc. The same compiler makes the same bytes, and what it makes works.
set -e
tar xf /stress/lua.tar --strip-components=1
make -s -C src MYLIBS= SYSCFLAGS=-DLUA_USE_POSIX all >make.log 2>&1 || { tail -n 3 make.log; exit 1; }
sha256sum src/lua src/luac
cat >work.lua <<'LUA'
local s, t = 0, {}
for i = 1, 200000 do t[i % 1009 + 1] = (t[i % 1009 + 1] or 0) + i % 7 end
for i, v in ipairs(t) do s = s + i * v end
local words = {}
for w in (("alpha beta gamma delta "):rep(500)):gmatch("%a+") do words[#words + 1] = w:upper() end
table.sort(words)
print(s, #words, words[1], words[#words], string.format("%.17g", math.sin(1) ^ 0.5))
LUA
src/lua work.lua
