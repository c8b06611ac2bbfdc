//! What a disk is made of: layers in its folder, and which of them is what.
//!
//! *Invariants*: the manifest is replaced whole, and only when all it names is on the medium. Whatever is in the
//! folder and not in it is of work that was cut off, and can go. A layer that others stand on is never written.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use model::{Consistency, DiskId, Name, SnapshotId, VmId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use storage::{DiskOptions, Format, create_layer};

/// A layer's number in its disk: none is used again.
type Number = u64;

/// What a disk is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The number of the next layer.
    next: Number,
    /// The layer that is written.
    pub top: Number,
    layers: BTreeMap<Number, Layer>,
    /// Snapshots: layers that stay as they are.
    pub snapshots: BTreeMap<SnapshotId, Taken>,
    /// A snapshot that is being taken.
    #[serde(default)]
    pub pending: Option<Pending>,
    /// Reverts that are done.
    pub reverts: u64,
    pub size_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Layer {
    /// What it stands on.
    below: Option<Number>,
    /// It is an image's bytes, and no layer of ours.
    #[serde(default)]
    is_image: bool,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    layer: Number,
    pub size_bytes: u64,
    pub consistency: Consistency,
}

/// A snapshot that is being taken: the layer after it is there, and perhaps in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub snapshot: SnapshotId,
    layer: Number,
    /// Who runs with the disk.
    pub vm: Option<VmId>,
    /// What the VM calls it.
    pub name: Name,
}

/// The folder of a disk.
#[derive(Debug, Clone)]
pub(crate) struct DiskFolder(PathBuf);

const MANIFEST: &str = "disk.json";

impl DiskFolder {
    pub fn of(pool: &Path, id: DiskId) -> Self {
        Self(pool.join(id.to_string()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn layer(&self, number: Number) -> PathBuf {
        self.0.join(format!("layer-{number}"))
    }

    /// An empty folder.
    pub fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        for entry in fs::read_dir(&self.0)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// `None`: the disk is not made.
    pub fn load(&self) -> io::Result<Option<Manifest>> {
        match fs::read(self.0.join(MANIFEST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => Ok(Some(serde_json::from_slice(&text?)?)),
        }
    }

    /// The old one or the new one is there, whatever happens.
    pub fn save(&self, manifest: &Manifest) -> io::Result<()> {
        let partial = self.0.join("disk.partial");
        let mut file = File::create(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
        file.sync_all()?;
        fs::rename(partial, self.0.join(MANIFEST))?;
        File::open(&self.0)?.sync_all()
    }

    /// Removes what the manifest does not name.
    pub fn sweep(&self, manifest: &Manifest) -> io::Result<()> {
        let pending = manifest.pending.as_ref().map(|pending| pending.layer);
        let named: Vec<PathBuf> =
            manifest.layers.keys().copied().chain(pending).map(|n| self.layer(n)).collect();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path != self.0.join(MANIFEST) && !named.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Bytes that are this disk's alone.
    pub fn used_bytes(&self, manifest: &Manifest) -> u64 {
        let used = |number: &Number| {
            let Ok(metadata) = fs::metadata(self.layer(*number)) else { return 0 };
            if metadata.nlink() > 1 { 0 } else { metadata.blocks() * 512 }
        };
        manifest.layers.keys().map(used).sum()
    }

    /// Somebody has the disk open.
    pub fn is_in_use(&self, manifest: &Manifest) -> io::Result<bool> {
        let file = File::open(self.layer(manifest.top))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            locked => locked.map(|()| false).map_err(Into::into),
        }
    }

    /// A layer and all below it.
    pub fn options(&self, manifest: &Manifest, layer: Number) -> DiskOptions {
        let format = |number: Number| {
            let is_image = manifest.layers.get(&number).is_some_and(|layer| layer.is_image);
            Some(if is_image { Format::Raw } else { Format::Qcow2 })
        };
        let mut backing = Vec::new();
        let mut at = manifest.layers.get(&layer).and_then(|layer| layer.below);
        while let Some(number) = at {
            backing.push((self.layer(number), format(number)));
            at = manifest.layers.get(&number).and_then(|layer| layer.below);
        }
        let options = DiskOptions::new(self.layer(layer));
        DiskOptions { format: format(layer), backing, ..options }
    }

    /// The same as a VM's process is told it.
    pub fn told(&self, options: &DiskOptions) -> String {
        let mut text = format!("{},format=qcow2", options.path.display());
        for (path, format) in &options.backing {
            let format = if *format == Some(Format::Raw) { "raw" } else { "qcow2" };
            text.push_str(&format!(",backing={format}:{}", path.display()));
        }
        text
    }

    /// A new disk. `image`: its bytes are there as the first layer.
    pub fn found(&self, size_bytes: u64, image: bool) -> io::Result<Manifest> {
        let mut manifest = Manifest { size_bytes, ..Manifest::default() };
        let below = image.then(|| manifest.add(Layer { below: None, is_image: true }));
        self.put_top(&mut manifest, below)?;
        self.save(&manifest)?;
        Ok(manifest)
    }

    /// Makes an empty layer over another the one that is written.
    fn put_top(&self, manifest: &mut Manifest, below: Option<Number>) -> io::Result<()> {
        let number = manifest.next;
        self.make_layer(manifest, number, below)?;
        manifest.top = manifest.add(Layer { below, is_image: false });
        Ok(())
    }

    fn make_layer(
        &self,
        manifest: &Manifest,
        number: Number,
        below: Option<Number>,
    ) -> io::Result<()> {
        let path = self.layer(number);
        // Of an attempt that was cut off.
        if path.exists() {
            fs::remove_file(&path)?;
        }
        let is_image = |below: Number| manifest.layers.get(&below).is_some_and(|of| of.is_image);
        let over = below.map(|of| if is_image(of) { Format::Raw } else { Format::Qcow2 });
        create_layer(&path, manifest.size_bytes, over)
    }

    /// The first part of a snapshot: the layer after it is there, and the disk as it was.
    pub fn begin(
        &self,
        manifest: &mut Manifest,
        snapshot: SnapshotId,
        vm: Option<VmId>,
        name: &Name,
    ) -> io::Result<()> {
        if manifest.pending.as_ref().is_some_and(|pending| pending.snapshot == snapshot) {
            return Ok(());
        }
        let layer = manifest.next;
        self.make_layer(manifest, layer, Some(manifest.top))?;
        manifest.next += 1;
        manifest.pending = Some(Pending { snapshot, layer, vm, name: name.clone() });
        self.save(manifest)
    }

    /// The disk with the layer after the snapshot.
    pub fn pending_options(&self, manifest: &Manifest) -> Option<DiskOptions> {
        let layer = manifest.pending.as_ref()?.layer;
        let mut with = manifest.clone();
        with.layers.insert(layer, Layer { below: Some(manifest.top), is_image: false });
        Some(self.options(&with, layer))
    }

    /// The second part of a snapshot: it is there. Right also if the new layer was never used.
    pub fn complete(&self, manifest: &mut Manifest, consistency: Consistency) -> io::Result<()> {
        let Some(Pending { snapshot, layer, .. }) = manifest.pending.take() else {
            return Ok(());
        };
        let size_bytes = manifest.size_bytes;
        let taken = Taken { layer: manifest.top, size_bytes, consistency };
        manifest.snapshots.insert(snapshot, taken);
        manifest.layers.insert(layer, Layer { below: Some(manifest.top), is_image: false });
        manifest.top = layer;
        self.save(manifest)
    }

    /// Or it is not, because nobody has used the new layer.
    pub fn abandon(&self, manifest: &mut Manifest) -> io::Result<()> {
        manifest.pending = None;
        self.save(manifest)?;
        self.sweep(manifest)
    }

    /// The disk becomes what it was. Nobody uses it.
    pub fn revert(&self, manifest: &mut Manifest, to: SnapshotId, number: u64) -> io::Result<()> {
        if manifest.reverts < number {
            let taken = manifest.snapshots.get(&to);
            let missing = || io::Error::other("this disk is not in the snapshot");
            let below = taken.ok_or_else(missing)?.layer;
            self.put_top(manifest, Some(below))?;
            manifest.reverts = number;
            manifest.prune();
            self.save(manifest)?;
        }
        self.sweep(manifest)
    }

    /// Forgets all snapshots but these.
    pub fn keep(&self, manifest: &mut Manifest, snapshots: &[SnapshotId]) -> io::Result<()> {
        manifest.snapshots.retain(|id, _| snapshots.contains(id));
        manifest.prune();
        self.save(manifest)?;
        self.sweep(manifest)
    }

    /// Two layers have become one, in this file.
    pub fn join(
        &self,
        manifest: &mut Manifest,
        (below, above): (Number, Number),
        merged: Number,
    ) -> io::Result<()> {
        let under = manifest.layers.get(&below).and_then(|layer| layer.below);
        manifest.layers.remove(&below);
        manifest.layers.remove(&above);
        manifest.layers.insert(merged, Layer { below: under, is_image: false });
        for layer in manifest.layers.values_mut() {
            if layer.below == Some(above) {
                layer.below = Some(merged);
            }
        }
        for taken in manifest.snapshots.values_mut() {
            if taken.layer == above {
                taken.layer = merged;
            }
        }
        if manifest.top == above {
            manifest.top = merged;
        }
        manifest.next = manifest.next.max(merged + 1);
        self.save(manifest)?;
        self.sweep(manifest)
    }
}

impl Manifest {
    fn add(&mut self, layer: Layer) -> Number {
        let number = self.next;
        self.next += 1;
        self.layers.insert(number, layer);
        number
    }

    /// The number that the next layer will have.
    pub fn next(&self) -> Number {
        self.next
    }

    /// Forgets layers that nothing stands on.
    fn prune(&mut self) {
        let mut used = Vec::new();
        for from in self.snapshots.values().map(|taken| taken.layer).chain([self.top]) {
            let mut at = Some(from);
            while let Some(number) = at {
                used.push(number);
                at = self.layers.get(&number).and_then(|layer| layer.below);
            }
        }
        self.layers.retain(|number, _| used.contains(number));
    }

    /// Two layers of which nobody needs the lower one alone; the upper one may be the top if that is not in use.
    pub fn mergeable(&self, is_in_use: bool) -> Option<(Number, Number)> {
        let mut above: BTreeMap<Number, Vec<Number>> = BTreeMap::new();
        for (number, layer) in &self.layers {
            if let Some(below) = layer.below {
                above.entry(below).or_default().push(*number);
            }
        }
        let is_plain = |number: &Number| {
            let is_taken = self.snapshots.values().any(|taken| taken.layer == *number);
            !is_taken && self.layers.get(number).is_some_and(|layer| !layer.is_image)
        };
        above.into_iter().find_map(|(below, above)| match above[..] {
            [above] if is_plain(&below) && (above != self.top || !is_in_use) => {
                Some((below, above))
            }
            _ => None,
        })
    }
}
