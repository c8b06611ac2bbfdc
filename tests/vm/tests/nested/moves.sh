# Moves a guest at work between `hw` and `emu`, MOVES times, and ends it. The work (Init::Work)
# writes a disk and reads it back.
moves=$1
cmdline=$2
truncate -s 16M disk
./trine run --engine hw --cpus 2 --memory 256M --kernel vmlinuz --initrd work.cpio \
  --cmdline "$cmdline" --disk disk --control ctl < /dev/null > log 2>&1 &
run=$!
while ! grep -q TRINE-GUEST-UP log; do
  sleep 0.2
  kill -0 $run || { cat log; exit 1; }
done
done=0
while [ $done -lt $moves ]; do
  [ $((done % 2)) = 0 ] && to=emu || to=hw
  if ! ./trine move --engine $to --control ctl; then
    cat log
    exit 1
  fi
  done=$((done + 1))
  sleep 0.3
done
echo MOVED $done
./trine status --control ctl
./trine quit --control ctl
wait $run
status=$?
cat log
echo STATUS $status
