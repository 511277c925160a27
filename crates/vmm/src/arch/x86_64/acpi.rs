//! The ACPI tables: how the guest finds its CPUs, its devices and the generation identifier. Hardware-reduced ACPI 6: no PM registers, no FACS, no SCI.

use acpi_tables::aml::{Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name, Notify, Package, Path, ResourceTemplate, Scope};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

use super::layout;

const OEM: [u8; 6] = *b"EMBERB";
const TABLE: [u8; 8] = *b"EMBERBOX";
const REVISION: u32 = 1;
/// FADT's boot flags: no VGA to probe, no MSIs to offer, no CMOS clock.
const BOOT_FLAGS: u16 = 1 << 2 | 1 << 3 | 1 << 5;
const DSDT_REVISION: u8 = 6;
/// The notification that the generation identifier has changed.
const GENERATION_CHANGED: u8 = 0x80;

/// Bytes to be put into guest memory.
pub(crate) struct Tables {
    pub address: u64,
    pub bytes: Vec<u8>,
}

/// The tables of a machine with so many vCPUs and virtio devices. They begin with the root pointer.
pub(crate) fn tables(vcpus: u8, devices: usize) -> Tables {
    let mut bytes = vec![0; Rsdp::len()];
    let mut place = |table: &dyn Aml| {
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let address = layout::ACPI + bytes.len() as u64;
        table.to_aml_bytes(&mut Sink(&mut bytes));
        address
    };
    let dsdt = place(&dsdt(devices));
    let fadt = place(&fadt(dsdt));
    let madt = place(&madt(vcpus));
    let mut root = XSDT::new(OEM, TABLE, REVISION);
    root.add_entry(fadt);
    root.add_entry(madt);
    let root = place(&root);
    let mut pointer = Vec::new();
    Rsdp::new(OEM, root).to_aml_bytes(&mut Sink(&mut pointer));
    bytes[..pointer.len()].copy_from_slice(&pointer);
    Tables { address: layout::ACPI, bytes }
}

struct Sink<'a>(&'a mut Vec<u8>);

impl AmlSink for Sink<'_> {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt =
        FADTBuilder::new(OEM, TABLE, REVISION).dsdt_64(dsdt).flag(Flags::HwReducedAcpi).flag(Flags::PwrButton).flag(Flags::SlpButton);
    fadt.iapc_boot_arch = BOOT_FLAGS.into();
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(TABLE).into();
    fadt.finalize()
}

fn madt(vcpus: u8) -> MADT {
    let mut madt = MADT::new(OEM, TABLE, REVISION, LocalInterruptController::Address(layout::LOCAL_APIC));
    madt.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt
}

fn dsdt(devices: usize) -> impl Aml {
    let mut aml = Vec::new();
    let sink = &mut Sink(&mut aml);
    serial(sink);
    for slot in 0..devices {
        virtio(slot, sink);
    }
    generation(sink);
    let mut table = Sdt::new(*b"DSDT", 36, DSDT_REVISION, OEM, TABLE, REVISION);
    table.append_slice(&aml);
    table
}

fn serial(sink: &mut dyn AmlSink) {
    let (ports, line) = (IO::new(layout::SERIAL_PORTS.start, layout::SERIAL_PORTS.start, 1, 8), edge(layout::SERIAL_LINE));
    in_system(
        &Device::new(
            Path::new("COM1"),
            vec![
                &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
                &Name::new(Path::new("_UID"), &0u8),
                &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&ports, &line])),
            ],
        ),
        sink,
    );
}

fn virtio(slot: usize, sink: &mut dyn AmlSink) {
    let address = layout::device_address(slot) as u32;
    let (registers, line) = (Memory32Fixed::new(true, address, layout::DEVICE_SIZE as u32), edge(layout::device_line(slot)));
    let name = format!("V{slot:03}");
    in_system(
        &Device::new(
            Path::new(&name),
            vec![
                &Name::new(Path::new("_HID"), &"LNRO0005"),
                &Name::new(Path::new("_UID"), &(slot as u8)),
                &Name::new(Path::new("_CCA"), &1u8),
                &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&registers, &line])),
            ],
        ),
        sink,
    );
}

/// The identifier of this run of the machine, and the event device that says when it has changed.
fn generation(sink: &mut dyn AmlSink) {
    let address = Package::new(vec![&(layout::GENERATION_ID as u32), &0u32]);
    in_system(
        &Device::new(
            Path::new("VGEN"),
            vec![
                &Name::new(Path::new("_HID"), &"EMBR0001"),
                &Name::new(Path::new("_CID"), &"VMGENCTR"),
                &Name::new(Path::new("_DDN"), &"VM_Gen_Counter"),
                &Name::new(Path::new("ADDR"), &address),
            ],
        ),
        sink,
    );
    let line = edge(layout::GENERATION_LINE);
    let target = Path::new("\\_SB_.VGEN");
    in_system(
        &Device::new(
            Path::new("GED_"),
            vec![
                &Name::new(Path::new("_HID"), &"ACPI0013"),
                &Name::new(Path::new("_UID"), &0u8),
                &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&line])),
                &Method::new(Path::new("_EVT"), 1, true, vec![&Notify::new(&target, &GENERATION_CHANGED)]),
            ],
        ),
        sink,
    );
}

fn edge(line: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, line)
}

fn in_system(device: &dyn Aml, sink: &mut dyn AmlSink) {
    Scope::new(Path::new("\\_SB_"), vec![device]).to_aml_bytes(sink);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(tables: &Tables, address: u64, length: usize) -> &[u8] {
        &tables.bytes[(address - tables.address) as usize..][..length]
    }

    fn number(bytes: &[u8]) -> u64 {
        bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn table(tables: &Tables, address: u64) -> &[u8] {
        let length = number(&at(tables, address, 8)[4..]) as usize;
        at(tables, address, length)
    }

    fn sums_to_zero(bytes: &[u8]) -> bool {
        bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
    }

    #[test]
    fn every_table_is_found_from_the_root_and_sums_to_zero() {
        let tables = tables(4, 5);
        assert_eq!(&tables.bytes[..8], b"RSD PTR ");
        assert!(sums_to_zero(&tables.bytes[..20]) && sums_to_zero(&tables.bytes[..36]));
        let xsdt = table(&tables, number(&tables.bytes[24..32]));
        assert!(sums_to_zero(xsdt));
        let found: Vec<_> = xsdt[36..].chunks(8).map(|address| table(&tables, number(address))).collect();
        assert_eq!(found.iter().map(|table| &table[..4]).collect::<Vec<_>>(), [b"FACP", b"APIC"]);
        let dsdt = table(&tables, number(&found[0][140..148]));
        assert_eq!(&dsdt[..4], b"DSDT");
        for table in found.into_iter().chain([dsdt]) {
            assert!(sums_to_zero(table));
        }
    }

    #[test]
    fn the_largest_machine_fits_below_its_generation_identifier() {
        let tables = tables(16, layout::MAX_DEVICES);
        assert!(tables.address + (tables.bytes.len() as u64) < layout::GENERATION_ID);
    }

    /// What a compiler of ACPI tables makes of them, where one is installed (Debian's acpica-tools).
    #[test]
    fn iasl_can_disassemble_and_compile_them() {
        let directory = tempfile::tempdir().unwrap();
        let tables = tables(2, 4);
        let xsdt = table(&tables, number(&tables.bytes[24..32]));
        let fadt = table(&tables, number(&xsdt[36..44]));
        let dsdt = table(&tables, number(&fadt[140..148]));
        for (name, bytes) in [("dsdt", dsdt), ("facp", fadt), ("apic", table(&tables, number(&xsdt[44..52])))] {
            std::fs::write(directory.path().join(format!("{name}.dat")), bytes).unwrap();
        }
        let run = |arguments: &[&str]| std::process::Command::new("iasl").args(arguments).current_dir(directory.path()).output();
        let Ok(output) = run(&["-d", "dsdt.dat", "facp.dat", "apic.dat"]) else {
            return println!("skipped: iasl is not installed");
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let output = run(&["-we", "dsdt.dsl"]).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("0 Errors"), "{text}");
    }
}
