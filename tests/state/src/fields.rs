//! Saved fields, whatever they are of.

use std::collections::BTreeMap;

use board::NamedSection;
use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};
use statecodec::Section;

/// Every field of these sections, with the bytes of all its values. Its name is the section's kind
/// and field numbers, without places in arrays: `pit/0/3` is field 3 of all of field 0.
pub fn fields(sections: &[NamedSection]) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for named in sections {
        section(&named.section, &mut found);
    }
    found
}

fn section(section: &Section, found: &mut BTreeMap<String, Vec<u8>>) {
    let mut decoder = Decoder::new(&section.bytes);
    value(&section.kind, &mut decoder, found).unwrap();
}

fn value(
    name: &str,
    decoder: &mut Decoder<'_>,
    found: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), Error> {
    let begin = decoder.position();
    match decoder.datatype()? {
        // Only sections begin with a text: their fields are named after their own kind.
        Type::Map if decoder.probe().decode::<Section>().is_ok() => {
            section(&decoder.decode()?, found);
        }
        Type::Map => {
            for _ in 0..decoder.map()?.unwrap_or(0) {
                let number = decoder.u32()?;
                value(&format!("{name}/{number}"), decoder, found)?;
            }
        }
        Type::Array => {
            for _ in 0..decoder.array()?.unwrap_or(0) {
                value(name, decoder, found)?;
            }
        }
        _ => {
            decoder.skip()?;
            let bytes = &decoder.input()[begin..decoder.position()];
            found.entry(name.to_owned()).or_default().extend(bytes);
        }
    }
    Ok(())
}
