//! VMs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::object::{object, refuse};
use crate::snapshot::DISKS_MAX;
use crate::{Amounts, CardStatus, Membership, Meta, Name, Spec, SpecError, VmId};

/// What owners note down about an object.
pub type Labels = BTreeMap<String, String>;

object! {
    /// A VM.
    Vm: Vm, VmId, VmSpec, VmStatus
}

/// What a VM is.
pub type VmMeta = Meta<VmId>;

/// What is wanted of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// What it shall do.
    #[serde(default)]
    pub power: Power,
    /// Which of its starts is wanted: counted up by start and restart.
    #[serde(default)]
    #[schema(read_only)]
    pub boot: u64,
    /// Number of CPUs.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 32)]
    pub cpus: u32,
    /// RAM in bytes.
    #[serde(default = "half_a_gib")]
    #[schema(minimum = 16777216)]
    pub memory_bytes: u64,
    /// So many CPUs can come while it runs, in all; none can without it. It counts from the next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 32)]
    pub cpus_max: Option<u32>,
    /// So much RAM can come while it runs, in all, in bytes; none can without it. It counts from the next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max_bytes: Option<u64>,
    /// Who executes its CPUs.
    #[serde(default)]
    pub engine: Engine,
    /// The image of which a disk is made for it, which is called as the VM and deleted with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Bytes of that disk, if it is to be larger than the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Its disks, in the order in which it has them; that of the image is the first. Others are attached and detached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Name>,
    /// What it starts from.
    #[serde(default)]
    pub boot_from: Boot,
    /// Its screen.
    #[serde(default)]
    pub display: Display,
    /// Its network, if it is on none of `networks`.
    #[serde(default)]
    pub network: Network,
    /// Its cards on networks that it shares with others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Card>,
    /// What its guest is told at its first boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    /// What is done when its guest ends by itself.
    #[serde(default)]
    pub on_end: OnEnd,
    /// The scale set that made it, and deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub scale_set: Option<Membership>,
    /// It cannot be deleted.
    #[serde(default)]
    pub protected: bool,
    /// How long its guest may take to shut down, in seconds, before it is ended.
    #[serde(default = "a_minute")]
    #[schema(maximum = 3600)]
    pub stop_limit_s: u32,
    /// What its owner notes down.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
}

fn one() -> u32 {
    1
}

fn half_a_gib() -> u64 {
    512 << 20
}

fn a_minute() -> u32 {
    60
}

impl Default for VmSpec {
    fn default() -> Self {
        Self {
            power: Power::default(),
            boot: 0,
            cpus: one(),
            memory_bytes: half_a_gib(),
            cpus_max: None,
            memory_max_bytes: None,
            engine: Engine::default(),
            image: None,
            disk_bytes: None,
            disks: Vec::new(),
            boot_from: Boot::default(),
            display: Display::default(),
            network: Network::default(),
            networks: Vec::new(),
            cloud_init: None,
            on_end: OnEnd::default(),
            scale_set: None,
            protected: false,
            stop_limit_s: a_minute(),
            labels: Labels::new(),
        }
    }
}

/// What a VM shall do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// Run.
    #[default]
    On,
    /// Be there, with its clock standing.
    Paused,
    /// Not run: its guest is asked to shut down, and ended when its time for that is over.
    Off,
    /// Not run: it is ended at once.
    OffNow,
}

impl Power {
    /// It shall run, or stand ready to.
    pub fn is_on(self) -> bool {
        matches!(self, Self::On | Self::Paused)
    }
}

/// Who executes a VM's CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// The best the host has.
    #[default]
    Auto,
    /// Hardware virtualization.
    Hw,
    /// Full virtualization.
    Full,
    /// Software virtualization.
    Emu,
}

impl Engine {
    /// Its name everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Hw => "hw",
            Self::Full => "full",
            Self::Emu => "emu",
        }
    }
}

/// What a VM starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// Firmware, and what that finds on the disk.
    Firmware(Firmware),
    /// A kernel, from a file of the host: for administrators.
    Kernel(KernelBoot),
}

impl Default for Boot {
    fn default() -> Self {
        Self::Firmware(Firmware::Bios)
    }
}

/// Which firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// A kernel and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelBoot {
    /// The kernel: an absolute path.
    pub kernel: String,
    /// Its initial RAM disk: an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// Its command line.
    #[serde(default)]
    pub cmdline: String,
}

/// A VM's screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Display {
    /// A screen, a keyboard and a mouse.
    #[default]
    Vga,
    /// None.
    None,
}

/// A VM's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// No network card.
    None,
    /// Out through sockets of the VM's process, and in through forwards.
    User(Vec<Forward>),
    /// As `user`, without forwards.
    #[default]
    Outbound,
}

/// A card on a network that VMs share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The network, one of its project.
    pub network: Name,
    /// What the guest sees.
    #[serde(default)]
    pub model: CardModel,
    /// The address that it shall have; without it, a free one is taken. It stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The security groups whose rules hold for it. Without any, nothing is let through.
    #[serde(default = "first_group")]
    pub security_groups: Vec<Name>,
    /// Ports of the host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Forward>,
}

fn first_group() -> Vec<Name> {
    vec![Name::default_name()]
}

/// What a guest sees of a card.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CardModel {
    /// A virtio card.
    #[default]
    Virtio,
    /// Intel's 82540EM.
    E1000,
}

/// A port of the host that leads into a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Of which protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// The host's address; the loopback without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub host_address: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// The guest's.
    pub guest_port: u16,
}

impl Forward {
    /// Both have the same port of the host, at an address that is the same or all.
    pub fn meets(&self, other: &Self) -> bool {
        let address = |of: &Self| of.host_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (a, b) = (address(self), address(other));
        let is_of_all = a.is_unspecified() || b.is_unspecified();
        (self.protocol, self.host_port) == (other.protocol, other.host_port)
            && a.is_ipv4() == b.is_ipv4()
            && (a == b || is_of_all)
    }
}

/// What a forward carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// What a guest is told at its first boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudInit {
    /// A user who may do anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Public keys by which that user can log in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// SSH keys of its project by which that user can log in, too. They are looked up when the VM is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Name>,
    /// What else is to be done, in one of cloud-init's formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

/// What is done when a guest ends by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnEnd {
    /// Nothing: it is stopped, or has failed.
    #[default]
    Stay,
    /// If it did not power itself off, it is started again.
    RestartOnFailure,
    /// It is started again.
    Restart,
}

/// What a VM is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmStatus {
    /// In one word.
    pub phase: Phase,
    /// Why, for people, where the word does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How much of its disks is made, of 100, while they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared_percent: Option<u8>,
    /// The start that is, or was last.
    #[serde(default)]
    pub boot: u64,
    /// The host it is placed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The engine it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Why that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_reason: Option<String>,
    /// What keeps the VM's process to its own files, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cage: Option<Cage>,
    /// The CPUs that its guest has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// The RAM that its guest has, in bytes. It comes in steps, and so may be more than is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The CPUs that it can have before its next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus_max: Option<u32>,
    /// The RAM that it can have before its next start, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max_bytes: Option<u64>,
    /// Which of `cpus` and `memory_bytes` of the spec cannot come before its next start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_next_start: Vec<String>,
    /// The disks that its guest has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Name>,
    /// The process that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Since when it is stopping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub stopping_since: Option<Timestamp>,
    /// Starts in a row that ended at once, by themselves.
    #[serde(default)]
    pub failures: u32,
    /// When it is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retry_at: Option<Timestamp>,
    /// How its last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<VmEnd>,
    /// What its cards on `networks` have, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<CardStatus>,
}

/// What keeps a VM's process to its own files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cage {
    /// What holds, in words for people.
    pub holds: Vec<String>,
    /// What this host lacks for more.
    pub lacks: Vec<String>,
}

/// What a VM is doing, in one word.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing has been done for it yet.
    #[default]
    Pending,
    /// Its disks are being made.
    Preparing,
    /// Its process is there, and not yet the guest.
    Starting,
    /// It runs.
    Running,
    /// It and its clock stand.
    Paused,
    /// Its guest is shutting down.
    Stopping,
    /// It does not run.
    Stopped,
    /// It does not run, against its owner's wish.
    Failed,
    /// It is going away.
    Deleting,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Preparing,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
        Self::Deleting,
    ];

    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }
}

/// How a run of a VM ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmEnd {
    /// Of which start.
    pub boot: u64,
    /// It ended as it should: powered off, or told to end.
    pub is_orderly: bool,
    /// How, for people.
    pub how: String,
    /// How long it ran, in seconds.
    #[serde(default)]
    pub ran_s: u64,
}

/// The largest `user_data`: cloud-init's seed is in memory.
const USER_DATA_LEN_MAX: usize = 64 << 10;
const LABELS_MAX: usize = 64;
const LABEL_LEN_MAX: usize = 256;
const SSH_KEYS_MAX: usize = 64;
const SSH_KEY_LEN_MAX: usize = 16 << 10;
const FORWARDS_MAX: usize = 64;
/// One digit is what the host's names of them have room for.
const CARDS_MAX: usize = 8;
const GROUPS_MAX: usize = 16;
const CMDLINE_LEN_MAX: usize = 2048;

impl Spec for VmSpec {
    fn check(&self) -> Result<(), SpecError> {
        if !(1..=32).contains(&self.cpus) {
            return refuse("cpus", "a VM has 1 to 32 CPUs");
        }
        if self.memory_bytes < 16 << 20 || self.memory_bytes > 1 << 42 {
            return refuse("memory_bytes", "a VM has 16 MiB to 4 TiB of memory");
        }
        if self.cpus_max.is_some_and(|most| !(self.cpus..=32).contains(&most)) {
            return refuse("cpus_max", "give as many as 'cpus', or more, up to 32");
        }
        if self.memory_max_bytes.is_some_and(|most| !(self.memory_bytes..=1 << 42).contains(&most))
        {
            return refuse(
                "memory_max_bytes",
                "give as much as 'memory_bytes', or more, up to 4 TiB",
            );
        }
        if self.disk_bytes.is_some_and(|bytes| bytes % 512 != 0 || bytes > 1 << 46) {
            return refuse("disk_bytes", "give a multiple of 512, of at most 64 TiB");
        }
        if self.disk_bytes.is_some() && self.image.is_none() {
            return refuse("disk_bytes", "a disk is made of an image: name one");
        }
        if self.stop_limit_s > 3600 {
            return refuse("stop_limit_s", "an hour is the limit");
        }
        if self.disks.len() > DISKS_MAX {
            return refuse("disks", "32 disks are the limit");
        }
        check_labels(&self.labels)?;
        self.check_boot()?;
        self.check_network()?;
        self.check_cards()?;
        self.cloud_init.as_ref().map_or(Ok(()), CloudInit::check)
    }

    fn fixed_field(&self, new: &Self) -> Option<&'static str> {
        let places = |spec: &Self| -> Vec<_> {
            let place = |card: &Card| (card.network.clone(), card.model, card.address);
            spec.networks.iter().map(place).collect()
        };
        let keys =
            |spec: &Self| spec.cloud_init.as_ref().map(|of| of.keys.clone()).unwrap_or_default();
        let fields = [
            ("which networks a VM has cards on", places(self) == places(new)),
            ("spec.cloud_init.keys (put the text of a key into ssh_keys)", keys(self) == keys(new)),
            ("spec.image", self.image == new.image),
            ("spec.disk_bytes", self.disk_bytes == new.disk_bytes),
            ("spec.disks (use attach and detach)", self.disks == new.disks),
            ("spec.boot", self.boot == new.boot),
            ("spec.scale_set", self.scale_set == new.scale_set),
            ("spec.power (use start, stop, pause and resume)", self.power == new.power),
        ];
        fields.iter().find(|(_, is_same)| !is_same).map(|(field, _)| *field)
    }

    fn takes(&self) -> Amounts {
        Amounts {
            vms: 1,
            cpus: self.cpus.into(),
            memory_bytes: self.memory_bytes,
            addresses: self.networks.len() as u64,
            ..Amounts::default()
        }
    }
}

impl VmSpec {
    fn check_boot(&self) -> Result<(), SpecError> {
        let Boot::Kernel(boot) = &self.boot_from else { return Ok(()) };
        let is_path = |path: &str| path.starts_with('/') && !path.contains('\0');
        if !is_path(&boot.kernel) || !boot.initrd.as_deref().is_none_or(is_path) {
            return refuse("boot_from", "kernel and initrd are absolute paths of the host");
        }
        if boot.cmdline.len() > CMDLINE_LEN_MAX || boot.cmdline.contains(['\0', '\n']) {
            return refuse("boot_from", "a command line is one line of at most 2048 bytes");
        }
        Ok(())
    }

    fn check_network(&self) -> Result<(), SpecError> {
        let Network::User(forwards) = &self.network else { return Ok(()) };
        if !self.networks.is_empty() {
            return refuse(
                "network",
                "a VM with networks has none of its own: publish its cards' ports",
            );
        }
        check_forwards("network", forwards)
    }

    fn check_cards(&self) -> Result<(), SpecError> {
        if self.networks.len() > CARDS_MAX {
            return refuse("networks", "8 cards are the limit");
        }
        for card in &self.networks {
            check_forwards("networks.ports", &card.ports)?;
            if card.security_groups.len() > GROUPS_MAX {
                return refuse(
                    "networks.security_groups",
                    "16 security groups a card are the limit",
                );
            }
            let is_loopback =
                |port: &Forward| port.host_address.is_some_and(|of| of == Ipv6Addr::LOCALHOST);
            if card.ports.iter().any(is_loopback) {
                return refuse("networks.ports", "::1 leads nowhere else: give 127.0.0.1");
            }
        }
        Ok(())
    }
}

fn check_forwards(field: &'static str, forwards: &[Forward]) -> Result<(), SpecError> {
    if forwards.len() > FORWARDS_MAX {
        return refuse(field, "64 forwards are the limit");
    }
    if forwards.iter().any(|forward| forward.host_port == 0 || forward.guest_port == 0) {
        return refuse(field, "ports are 1 to 65535");
    }
    Ok(())
}

pub(crate) fn check_labels(labels: &Labels) -> Result<(), SpecError> {
    let is_long = |text: &String| text.is_empty() || text.len() > LABEL_LEN_MAX;
    if labels.len() > LABELS_MAX || labels.keys().any(is_long) {
        return refuse("labels", "64 labels with names of 1 to 256 bytes are the limit");
    }
    if labels.values().any(|value| value.len() > LABEL_LEN_MAX) {
        return refuse("labels", "values of 256 bytes are the limit");
    }
    Ok(())
}

impl CloudInit {
    fn check(&self) -> Result<(), SpecError> {
        let is_line = |text: &String| !text.contains(['\n', '\0']) && !text.is_empty();
        let is_user = |user: &String| is_line(user) && !user.contains([',', '=']);
        if !self.user.as_ref().is_none_or(is_user) {
            return refuse("cloud_init.user", "give a user's name");
        }
        let is_key = |key: &String| is_line(key) && key.len() <= SSH_KEY_LEN_MAX;
        if self.ssh_keys.len() + self.keys.len() > SSH_KEYS_MAX || !self.ssh_keys.iter().all(is_key)
        {
            return refuse("cloud_init.ssh_keys", "give at most 64 public keys, a line each");
        }
        if self.user_data.as_ref().is_some_and(|data| data.len() > USER_DATA_LEN_MAX) {
            return refuse("cloud_init.user_data", "64 KiB are the limit");
        }
        Ok(())
    }
}
