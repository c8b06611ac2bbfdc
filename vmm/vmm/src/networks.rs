//! The networks a VM's cards are on.

use std::fs;
use std::sync::Arc;

use evloop::EventLoop;
use net::{Mac, Network, Policed, Policy, Tap, UserConfig, UserNetwork};
use virtio::{Dispatch, NetConfig};

use crate::{NetSpec, NetworkSpec, VmError, VmSpec, VsockSpec};

/// More queues than this gain a card nothing and cost the guest's start.
const PAIRS_MAX: u32 = 4;

/// Opens all networks of `spec`. Those with descriptors wait on the loops of `dispatch`.
pub(crate) fn open(spec: &VmSpec, dispatch: &Dispatch) -> Result<Vec<board::NetSpec>, VmError> {
    let loops = match dispatch {
        _ if spec.nets.is_empty() => return Ok(Vec::new()),
        Dispatch::Inline => return Err(VmError::DeterministicNet),
        Dispatch::Loops(loops) => loops,
    };
    let identity = identity(spec);
    let each = spec.nets.iter().enumerate().zip(loops.iter().cycle());
    let most = spec.cpus_max.unwrap_or(spec.cpus);
    each.map(|((index, net), of)| open_one(net, &identity, index, most, of)).collect()
}

/// Opens the host's end of the guest's sockets, if it is to have any.
pub(crate) fn open_vsock(
    spec: &VmSpec,
    dispatch: &Dispatch,
) -> Result<Option<Arc<vsock::Host>>, VmError> {
    let Some(VsockSpec { cid, socket }) = &spec.vsock else { return Ok(None) };
    let Dispatch::Loops(loops) = dispatch else { return Err(VmError::DeterministicNet) };
    let host = vsock::Host::new(*cid, socket)?;
    let refused = |source| VmError::Host { operation: "wait for the guest's sockets", source };
    loops.first().map_or(Ok(()), |of| host.serve(of)).map_err(refused)?;
    Ok(Some(host))
}

/// Opens the network of a VM's card number `index`, which waits on `of`.
pub(crate) fn open_one(
    spec: &NetSpec,
    identity: &str,
    index: usize,
    cpus: u32,
    of: &EventLoop,
) -> Result<board::NetSpec, VmError> {
    let mac = mac_of(spec, identity, index);
    let pairs = cpus.min(PAIRS_MAX) as u16;
    let network: Arc<dyn Network> = match &spec.to {
        NetworkSpec::User(forwards) => {
            UserNetwork::new(&UserConfig { mac, forwards: forwards.clone() })?
        }
        NetworkSpec::Tap(name) => Tap::open(name, pairs, of)?,
        NetworkSpec::Bridge(name) => Tap::on_bridge(name, pairs, of)?,
    };
    connect(spec, network, identity, index, of)
}

fn mac_of(spec: &NetSpec, identity: &str, index: usize) -> Mac {
    spec.mac.unwrap_or_else(|| Mac::of_vm(identity, index))
}

/// The same, for a network that is open already.
pub(crate) fn connect(
    spec: &NetSpec,
    network: Arc<dyn Network>,
    identity: &str,
    index: usize,
    of: &EventLoop,
) -> Result<board::NetSpec, VmError> {
    let mac = mac_of(spec, identity, index);
    let policy = Policy { only_from: (!spec.spoof).then_some(mac), rate: spec.rate };
    let network: Arc<dyn Network> = if policy == Policy::default() {
        network
    } else {
        let refused = |source| VmError::Host { operation: "make an alarm for a network", source };
        Policed::new(network, policy, of).map_err(refused)?
    };
    Ok(board::NetSpec {
        network,
        config: NetConfig { mac, mac_changes: spec.spoof },
        model: spec.model,
    })
}

/// What stays the same from run to run and differs between VMs, as far as files can tell.
pub(crate) fn identity(spec: &VmSpec) -> String {
    let host = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let taps = spec.nets.iter().filter_map(|net| match &net.to {
        NetworkSpec::Tap(name) => Some(name.clone()),
        NetworkSpec::User(_) | NetworkSpec::Bridge(_) => None,
    });
    let files = spec.kernel.iter().chain(spec.disks.iter().map(|disk| &disk.options.path));
    let files = files.map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone()));
    let names = files.map(|path| path.display().to_string());
    std::iter::once(host).chain(names).chain(taps).collect::<Vec<_>>().join("\n")
}
