//! What is taken and what is refused.

use super::*;

#[test]
fn names_are_labels_and_never_ids() {
    for good in ["a", "web-1", &"a".repeat(63)] {
        assert_eq!(good.parse::<Name>().unwrap().as_ref(), good);
    }
    let id = VmId::new().to_string();
    for bad in ["", "-a", "a-", "A", "1a", "a_b", "a.b", "ü", &"a".repeat(64)] {
        assert!(bad.parse::<Name>().is_err(), "{bad}");
    }
    assert!(id.starts_with('0') && id.parse::<Name>().is_err(), "{id}");
}

#[test]
fn an_empty_spec_is_a_small_vm_that_runs() {
    let spec: VmSpec = serde_json::from_str("{}").unwrap();
    assert_eq!(spec, VmSpec::default());
    assert_eq!((spec.power, spec.cpus, spec.memory_bytes), (Power::On, 1, 512 << 20));
    spec.check().unwrap();
}

#[test]
fn a_misspelt_field_is_refused() {
    assert!(serde_json::from_str::<VmSpec>(r#"{"cpu": 2}"#).is_err());
}

#[test]
fn what_no_host_can_do_is_refused() {
    let refused = |change: fn(&mut VmSpec)| {
        let mut spec = VmSpec::default();
        change(&mut spec);
        spec.check().unwrap_err().field
    };
    assert_eq!(refused(|spec| spec.cpus = 33), "cpus");
    assert_eq!(refused(|spec| spec.memory_bytes = 1), "memory_bytes");
    assert_eq!(refused(|spec| spec.stop_limit_s = 3601), "stop_limit_s");
    let kernel = |spec: &mut VmSpec| {
        let kernel = "../vmlinuz".to_owned();
        let boot = KernelBoot { kernel, initrd: None, cmdline: String::new() };
        spec.boot_from = Boot::Kernel(boot);
    };
    assert_eq!(refused(kernel), "boot_from");
    let keys = |spec: &mut VmSpec| {
        let ssh_keys = vec!["ssh-ed25519 AAAA\nrun: rm".to_owned()];
        spec.cloud_init = Some(CloudInit { ssh_keys, ..CloudInit::default() });
    };
    assert_eq!(refused(keys), "cloud_init.ssh_keys");
    let forward = |spec: &mut VmSpec| {
        let forward =
            Forward { protocol: Protocol::Tcp, host_address: None, host_port: 0, guest_port: 22 };
        spec.network = Network::User(vec![forward]);
    };
    assert_eq!(refused(forward), "network");
}

#[test]
fn networks_have_subnets_that_hosts_can_have() {
    let refused = |ipv4: &str, ipv6: &str| {
        let (ipv4, ipv6) = (ipv4.parse().unwrap(), ipv6.parse().unwrap());
        NetworkSpec { ipv4, ipv6, ..NetworkSpec::default() }.check().err().map(|error| error.field)
    };
    assert_eq!(refused("auto", "auto"), None);
    assert_eq!(refused("10.0.0.0/24", "fd00::/64"), None);
    for bad in ["10.0.0.1/24", "10.0.0.0/30", "10.0.0.0/8", "127.0.0.0/24", "224.0.0.0/24"] {
        assert_eq!(refused(bad, "auto"), Some("ipv4"), "{bad}");
    }
    for bad in ["fd00::/63", "fd00::1/64", "fe80::/64", "::/64"] {
        assert_eq!(refused("auto", bad), Some("ipv6"), "{bad}");
    }
    assert_eq!(refused("none", "none"), Some("ipv4"));
    assert!("10.0.0.0".parse::<Subnet<ipnet::Ipv4Net>>().is_err());
}

#[test]
fn an_address_has_a_number_and_a_number_addresses() {
    let (ipv4, ipv6) = ("10.1.2.0/29".parse().unwrap(), "fd00::/64".parse().unwrap());
    let spec = NetworkSpec { ipv4, ipv6, ..NetworkSpec::default() };
    assert_eq!(spec.numbers(), 2..=6);
    for number in spec.numbers() {
        let (v4, v6) = spec.addresses(number);
        assert_eq!(spec.number(v4.unwrap().into()), Some(number));
        assert_eq!(spec.number(v6.unwrap().into()), Some(number));
    }
    for other in ["10.1.2.1", "10.1.2.7", "10.1.1.2", "fd00::7", "fd01::2"] {
        assert_eq!(spec.number(other.parse().unwrap()), None, "{other}");
    }
}
