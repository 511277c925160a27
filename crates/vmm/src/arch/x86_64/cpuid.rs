//! The CPU that guests see: a profile, which is an exact and named set of CPUID leaves.
//!
//! What a profile may hold is listed here bit by bit; what KVM or the host's CPU adds to it later stays hidden, and so does what a snapshot could not take
//! along (performance counters, AMX, nested virtualization). A profile's name ends with a checksum of all its leaves: the same name is the same CPU, so a
//! snapshot made with a name runs wherever that name is offered and is refused elsewhere.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;

/// Leaves of a CPU that is not yet any particular vCPU's.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuProfile {
    pub name: String,
    leaves: Vec<kvm_cpuid_entry2>,
}

/// The registers of a leaf that a profile lets through.
struct Allowed {
    function: u32,
    index: u32,
    eax: u32,
    ebx: u32,
    ecx: u32,
    edx: u32,
}

const ALL: u32 = u32::MAX;

const fn bits(list: &[u32]) -> u32 {
    let (mut mask, mut i) = (0, 0);
    while i < list.len() {
        mask |= 1 << list[i];
        i += 1;
    }
    mask
}

const fn whole(function: u32, index: u32) -> Allowed {
    Allowed { function, index, eax: ALL, ebx: ALL, ecx: ALL, edx: ALL }
}

/// SSE3 PCLMUL SSSE3 FMA CX16 PCID SSE4.1 SSE4.2 x2APIC MOVBE POPCNT TSC-deadline AES XSAVE OSXSAVE AVX F16C RDRAND hypervisor.
const LEAF_1_ECX: u32 = bits(&[0, 1, 9, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31]);
/// FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFLUSH MMX FXSR SSE SSE2 HTT.
const LEAF_1_EDX: u32 = bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 28]);
/// FSGSBASE TSC_ADJUST BMI1 AVX2 SMEP BMI2 ERMS INVPCID RDSEED ADX SMAP CLFLUSHOPT CLWB SHA.
const LEAF_7_EBX: u32 = bits(&[0, 1, 3, 5, 7, 8, 9, 10, 18, 19, 20, 23, 24, 29]);
/// UMIP VAES VPCLMULQDQ RDPID.
const LEAF_7_ECX: u32 = bits(&[2, 9, 10, 22]);
/// FSRM MD_CLEAR SPEC_CTRL STIBP FLUSH_L1D ARCH_CAPABILITIES SSBD.
const LEAF_7_EDX: u32 = bits(&[4, 10, 26, 27, 28, 29, 31]);
/// x87, SSE, AVX.
const XCR0: u32 = 0b111;
/// LAHF CMP_LEGACY CR8_LEGACY ABM SSE4A MISALIGNSSE 3DNOWPREFETCH TOPOEXT.
const EXTENDED_1_ECX: u32 = bits(&[0, 1, 4, 5, 6, 7, 8, 22]);
/// As leaf 1, and SYSCALL NX MMXEXT FFXSR PDPE1GB RDTSCP LM.
const EXTENDED_1_EDX: u32 = LEAF_1_EDX & !(1 << 28) | bits(&[11, 20, 22, 25, 26, 27, 29]);
/// CLZERO XSAVEERPTR WBNOINVD IBPB IBRS STIBP STIBP_ALWAYS_ON SSBD VIRT_SSBD SSB_NO PSFD.
const EXTENDED_8_EBX: u32 = bits(&[0, 2, 9, 12, 14, 15, 17, 24, 25, 26, 28]);
/// LFENCE serialises, null selectors clear the base, AUTOMATIC_IBRS, SBPB, SRSO_NO.
const EXTENDED_21_EAX: u32 = bits(&[2, 6, 8, 27, 29]);
/// Clock, no I/O delay, clock 2, steal time, unhalt, TLB flush, IPIs, yield, stable clock. Not asynchronous page faults and EOIs in guest memory: state
/// that would be under way at a snapshot.
const KVM_FEATURES: u32 = bits(&[0, 1, 3, 5, 7, 9, 11, 13, 24]);

const ALLOWED: [Allowed; 25] = [
    whole(0, 0),
    Allowed { function: 1, index: 0, eax: ALL, ebx: 0xff00, ecx: LEAF_1_ECX, edx: LEAF_1_EDX },
    whole(2, 0),
    whole(4, 0),
    whole(4, 1),
    whole(4, 2),
    whole(4, 3),
    Allowed { function: 6, index: 0, eax: 1 << 2, ebx: 0, ecx: 0, edx: 0 },
    Allowed { function: 7, index: 0, eax: 0, ebx: LEAF_7_EBX, ecx: LEAF_7_ECX, edx: LEAF_7_EDX },
    Allowed { function: 0xd, index: 0, eax: XCR0, ebx: 0, ecx: 0, edx: 0 },
    Allowed { function: 0xd, index: 1, eax: 0b1111, ebx: 0, ecx: 0, edx: 0 },
    whole(0xd, 2),
    whole(0x4000_0000, 0),
    Allowed { function: 0x4000_0001, index: 0, eax: KVM_FEATURES, ebx: 0, ecx: 0, edx: 0 },
    whole(0x8000_0000, 0),
    Allowed { function: 0x8000_0001, index: 0, eax: ALL, ebx: 0, ecx: EXTENDED_1_ECX, edx: EXTENDED_1_EDX },
    whole(0x8000_0005, 0),
    whole(0x8000_0006, 0),
    Allowed { function: 0x8000_0007, index: 0, eax: 0, ebx: 0, ecx: 0, edx: 1 << 8 },
    Allowed { function: 0x8000_0008, index: 0, eax: ALL, ebx: EXTENDED_8_EBX, ecx: 0, edx: 0 },
    whole(0x8000_001d, 0),
    whole(0x8000_001d, 1),
    whole(0x8000_001d, 2),
    whole(0x8000_001d, 3),
    Allowed { function: 0x8000_0021, index: 0, eax: EXTENDED_21_EAX, ebx: 0, ecx: 0, edx: 0 },
];

const HYPERVISOR: u32 = 1 << 31;
const TSC_DEADLINE: u32 = 1 << 24;
const XSAVE: u32 = 1 << 26;
const HYPERTHREADS: u32 = 1 << 28;
const BRAND: &[u8; 48] = b"Emberbox virtual CPU\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Bytes of XSAVE's legacy area and header; AVX's part follows.
const XSAVE_HEADER: u32 = 576;
const AVX_STATE: u32 = 256;
/// What makes x86-64-v2 and v3 of a v1: the bits of leaf 1 (ECX), leaf 7 (EBX) and 0x80000001 (ECX).
const V2: (u32, u32, u32) = (bits(&[0, 9, 13, 19, 20, 23]), 0, bits(&[0]));
const V3: (u32, u32, u32) = (bits(&[12, 22, 26, 28, 29]), bits(&[3, 5, 8]), bits(&[5]));

impl CpuProfile {
    /// The profile that this host offers.
    pub fn of_host(kvm: &Kvm) -> Result<Self, kvm_ioctls::Error> {
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        Ok(Self::from_supported(supported.as_slice()))
    }

    fn from_supported(supported: &[kvm_cpuid_entry2]) -> Self {
        let mut leaves: Vec<_> = supported.iter().filter_map(masked).collect();
        leaves.extend((0..3).map(brand));
        for leaf in &mut leaves {
            match (leaf.function, leaf.index) {
                (1, _) => leaf.ecx |= HYPERVISOR | TSC_DEADLINE,
                (0, _) => leaf.eax = leaf.eax.min(0xd),
                (0x8000_0000, _) => leaf.eax = leaf.eax.min(0x8000_0021),
                _ => {}
            }
        }
        set_xsave_size(&mut leaves);
        leaves.sort_by_key(|leaf| (leaf.function, leaf.index));
        let name = format!("{}-{}-{:08x}", vendor(&leaves), level(&leaves), checksum(&leaves));
        Self { name, leaves }
    }

    /// Which parts of extended state the CPU has; none without XSAVE.
    pub(crate) fn xcr0(&self) -> u64 {
        if find(&self.leaves, 1).ecx & XSAVE == 0 { 0 } else { u64::from(find(&self.leaves, 0xd).eax) }
    }

    /// The leaves of vCPU `id` of `count`.
    pub(crate) fn of_vcpu(&self, id: u8, count: u8) -> Result<CpuId, vmm_sys_util::fam::Error> {
        let (id, count) = (u32::from(id), u32::from(count));
        let mut leaves = self.leaves.clone();
        let bits = count.next_power_of_two().trailing_zeros();
        for leaf in &mut leaves {
            match leaf.function {
                1 => {
                    leaf.ebx |= id << 24 | count << 16;
                    leaf.edx |= if count > 1 { HYPERTHREADS } else { 0 };
                }
                // Each cache but the last is a core's own.
                4 if leaf.eax & 0x1f != 0 => leaf.eax = leaf.eax & 0x3fff | (count - 1) << 26 | shared_by(leaf.eax, count) << 14,
                0x8000_001d if leaf.eax & 0x1f != 0 => leaf.eax = leaf.eax & 0x3fff | shared_by(leaf.eax, count) << 14,
                0x8000_0008 => leaf.ecx = bits << 12 | (count - 1),
                _ => {}
            }
        }
        leaves.extend(topology(id, count, bits));
        if self.is_amd() {
            leaves.push(kvm_cpuid_entry2 { function: 0x8000_001e, eax: id, ebx: id, ..Default::default() });
        }
        CpuId::from_entries(&leaves)
    }

    fn is_amd(&self) -> bool {
        self.name.starts_with("amd")
    }
}

/// Leaf 0xB: one thread a core, all cores in one package.
fn topology(id: u32, count: u32, bits: u32) -> [kvm_cpuid_entry2; 2] {
    let level = |index, eax, ebx, kind: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: kind << 8 | index,
        edx: id,
        ..Default::default()
    };
    [level(0, 0, 1, 1), level(1, bits, count, 2)]
}

/// The number of others that share a cache of this description: all of a third-level cache's, none of the others'.
fn shared_by(eax: u32, count: u32) -> u32 {
    if eax >> 5 & 0b111 >= 3 { count - 1 } else { 0 }
}

fn masked(leaf: &kvm_cpuid_entry2) -> Option<kvm_cpuid_entry2> {
    let indexed = leaf.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
    let index = if indexed { leaf.index } else { 0 };
    let allowed = ALLOWED.iter().find(|allowed| allowed.function == leaf.function && allowed.index == index)?;
    Some(kvm_cpuid_entry2 {
        function: leaf.function,
        index,
        flags: leaf.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: leaf.eax & allowed.eax,
        ebx: leaf.ebx & allowed.ebx,
        ecx: leaf.ecx & allowed.ecx,
        edx: leaf.edx & allowed.edx,
        ..Default::default()
    })
}

fn brand(part: u32) -> kvm_cpuid_entry2 {
    let word = |at: usize| {
        let at = part as usize * 16 + at * 4;
        u32::from_le_bytes([BRAND[at], BRAND[at + 1], BRAND[at + 2], BRAND[at + 3]])
    };
    kvm_cpuid_entry2 { function: 0x8000_0002 + part, eax: word(0), ebx: word(1), ecx: word(2), edx: word(3), ..Default::default() }
}

/// The size of what is left of the XSAVE area.
fn set_xsave_size(leaves: &mut [kvm_cpuid_entry2]) {
    for leaf in leaves.iter_mut().filter(|leaf| leaf.function == 0xd && leaf.index < 2) {
        let size = if leaf.index == 1 || leaf.eax & 0b100 != 0 { XSAVE_HEADER + AVX_STATE } else { XSAVE_HEADER };
        (leaf.ebx, leaf.ecx) = if leaf.index == 0 { (size, size) } else { (size, 0) };
    }
}

fn find(leaves: &[kvm_cpuid_entry2], function: u32) -> kvm_cpuid_entry2 {
    leaves.iter().find(|leaf| leaf.function == function && leaf.index == 0).copied().unwrap_or_default()
}

fn vendor(leaves: &[kvm_cpuid_entry2]) -> &'static str {
    match find(leaves, 0).ebx.to_le_bytes() {
        [b'G', b'e', b'n', b'u'] => "intel",
        [b'A', b'u', b't', b'h'] => "amd",
        _ => "other",
    }
}

fn level(leaves: &[kvm_cpuid_entry2]) -> &'static str {
    let (one, seven, extended) = (find(leaves, 1).ecx, find(leaves, 7).ebx, find(leaves, 0x8000_0001).ecx);
    let has = |(a, b, c): (u32, u32, u32)| one & a == a && seven & b == b && extended & c == c;
    match (has(V2), has(V3)) {
        (true, true) => "x86-64-v3",
        (true, false) => "x86-64-v2",
        _ => "x86-64",
    }
}

fn checksum(leaves: &[kvm_cpuid_entry2]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    for leaf in leaves {
        for number in [leaf.function, leaf.index, leaf.flags, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx] {
            sum.update(&number.to_le_bytes());
        }
    }
    sum.finalize()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn leaf(function: u32, index: u32, eax: u32, ebx: u32, ecx: u32, edx: u32) -> kvm_cpuid_entry2 {
        let flags = if matches!(function, 4 | 7 | 0xd) { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
        kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() }
    }

    fn host() -> Vec<kvm_cpuid_entry2> {
        vec![
            leaf(0, 0, 0x20, u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"cAMD"), u32::from_le_bytes(*b"enti")),
            leaf(1, 0, 0x830f10, 0x0702_0800, ALL, ALL),
            leaf(7, 0, 2, ALL, ALL, ALL),
            leaf(7, 1, ALL, ALL, ALL, ALL),
            leaf(0xa, 0, ALL, ALL, ALL, ALL),
            leaf(0xd, 0, ALL, 2696, 2696, 0),
            leaf(0xd, 1, ALL, 2696, ALL, ALL),
            leaf(0xd, 2, 256, 576, 0, 0),
            leaf(0x8000_0001, 0, 0x830f10, 0, ALL, ALL),
        ]
    }

    #[test]
    fn what_a_snapshot_could_not_take_along_is_hidden() {
        let profile = CpuProfile::from_supported(&host());
        let one = find(&profile.leaves, 1);
        assert_eq!(one.ecx & (1 << 5 | 1 << 3 | 1 << 15), 0, "VMX, MONITOR, PDCM");
        assert_eq!(one.ebx, 0x800, "the host's APIC id is not the guest's");
        assert_eq!(find(&profile.leaves, 0x8000_0001).ecx & 1 << 2, 0, "SVM");
        assert_eq!(find(&profile.leaves, 7).ebx & (1 << 16), 0, "AVX-512");
        let xsave = find(&profile.leaves, 0xd);
        assert_eq!((xsave.eax, xsave.ebx, xsave.ecx), (7, 832, 832));
        assert_eq!(profile.xcr0(), 7);
        let mut without = host();
        without[1].ecx &= !XSAVE;
        assert_eq!(CpuProfile::from_supported(&without).xcr0(), 0);
        assert!(!profile.leaves.iter().any(|leaf| leaf.function == 0xa || (leaf.function == 7 && leaf.index == 1)));
        assert_eq!(find(&profile.leaves, 0).eax, 0xd);
    }

    #[test]
    fn a_name_stands_for_every_bit() {
        let profile = CpuProfile::from_supported(&host());
        assert!(profile.name.starts_with("amd-x86-64-v3-"), "{}", profile.name);
        let mut newer = host();
        newer.push(leaf(0x24, 0, ALL, ALL, ALL, ALL));
        assert_eq!(CpuProfile::from_supported(&newer).name, profile.name, "what is hidden makes no other profile");
        let mut other = host();
        other[2].ebx &= !(1 << 29);
        assert_ne!(CpuProfile::from_supported(&other).name, profile.name);
    }

    #[test]
    fn each_vcpu_has_its_own_number() {
        let profile = CpuProfile::from_supported(&host());
        for id in 0..3u8 {
            let leaves = profile.of_vcpu(id, 3).unwrap();
            let one = find(leaves.as_slice(), 1);
            assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xff), (u32::from(id), 3));
            let levels: Vec<_> = leaves.as_slice().iter().filter(|leaf| leaf.function == 0xb).map(|leaf| (leaf.eax, leaf.edx)).collect();
            assert_eq!(levels, [(0, u32::from(id)), (2, u32::from(id))]);
        }
    }
}
