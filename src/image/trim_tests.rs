use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::image::{LeftOut, Witness};
use crate::oci::Tag;
use crate::oci::manifest::Content;

/// Documents by their digests.
#[derive(Default)]
struct Shelf(HashMap<Digest, Bytes>);

impl Shelf {
    fn put(&mut self, media_type: MediaType, text: &str) -> Descriptor {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let descriptor = Descriptor::of(media_type, &bytes);
        self.0.insert(descriptor.digest, bytes);
        descriptor
    }

    fn read(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.0.get(&descriptor.digest).cloned().ok_or_else(|| Error::failed("it is not there"))
    }

    fn children(&self, index: &Descriptor) -> Vec<Descriptor> {
        Manifest::parse(&index.media_type, &self.read(index).unwrap()).unwrap().children().to_vec()
    }

    /// A decision about the index at `root` that keeps what `keep` says of each child, by its architecture.
    fn decide(&self, root: &Descriptor, keep: &[&str]) -> Image {
        let mut image = Image::new("registry.example/app", root.clone(), IndexMode::Trim);
        self.list(root, keep, &mut image);
        image
    }

    fn list(&self, index: &Descriptor, keep: &[&str], image: &mut Image) {
        for descriptor in self.children(index) {
            let (parent, platform) = (index.digest, descriptor.platform.as_ref().map(ToString::to_string));
            let wanted = descriptor.platform.as_ref().is_none_or(|p| keep.contains(&p.architecture.as_str()));
            if wanted {
                image.kept.push(Kept { descriptor: descriptor.clone(), parent, platform, attests: None });
            } else {
                image.left_out.push(LeftOut { descriptor: descriptor.clone(), parent, platform, stub: false });
            }
            if descriptor.media_type.is_index() {
                self.list(&descriptor, keep, image);
            }
        }
    }

    /// The text of the trimmed root.
    fn trimmed(&self, root: &Descriptor, keep: &[&str]) -> Result<String> {
        let (image, made) = self.decide(root, keep).trim(|descriptor| self.read(descriptor))?;
        let text = match image.trimmed {
            Some(_) => made.into_iter().find(|made| made.descriptor.digest == image.root.digest).unwrap().bytes,
            None => self.read(&image.root)?,
        };
        Ok(String::from_utf8(text.to_vec()).unwrap())
    }
}

/// The text of a child in one of several spellings.
fn child(architecture: &str) -> String {
    let digest = Digest::of(architecture.as_bytes());
    format!(r#"{{"digest":"{digest}","size":7,"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#)
}

#[test]
fn every_other_byte_stays() {
    let (a, b, c) = (child("amd64"), child("arm64"), child("s390x"));
    let rows: Vec<(&str, &[&str], String, String)> = vec![
        ("the first", &["arm64", "s390x"], format!("[{a},{b},{c}]"), format!("[{b},{c}]")),
        ("the middle", &["amd64", "s390x"], format!("[{a},{b},{c}]"), format!("[{a},{c}]")),
        ("the last", &["amd64", "arm64"], format!("[{a},{b},{c}]"), format!("[{a},{b}]")),
        ("all but one", &["arm64"], format!("[{a},{b},{c}]"), format!("[{b}]")),
        ("nothing", &["amd64", "arm64", "s390x"], format!("[ {a} , {b},{c} ]"), format!("[ {a} , {b},{c} ]")),
        ("pretty", &["arm64", "s390x"], format!("[\n  {a},\n  {b},\n  {c}\n]"), format!("[\n  {b},\n  {c}\n]")),
        ("pretty, one", &["s390x"], format!("[\n\t{a},\n\t{b},\n\t{c}\n]"), format!("[\n\t{c}\n]")),
        ("uneven", &["amd64", "s390x"], format!("[ {a}  ,\r\n{b} , {c}]"), format!("[ {a} , {c}]")),
    ];
    for (what, keep, before, after) in rows {
        for around in [
            ("{\"schemaVersion\":2,\"manifests\":", "}"),
            (
                "{ \"annotations\": {\"manifests\": \"[{]\"}, \"manifests\" :\n ",
                ", \"x\": [1.0, \"\\\"}\"],\"schemaVersion\":2 }\n\n",
            ),
            ("{\"manif\\u0065sts\":", ",\"schemaVersion\":2}"),
        ] {
            for media_type in [MediaType::OCI_INDEX, MediaType::DOCKER_LIST] {
                let mut shelf = Shelf::default();
                let root = shelf.put(media_type, &format!("{}{before}{}", around.0, around.1));
                let expected = format!("{}{after}{}", around.0, around.1);
                assert_eq!(shelf.trimmed(&root, keep).unwrap(), expected, "{what}");
            }
        }
    }
}

#[test]
fn a_digest_that_is_listed_for_two_platforms_stays_for_the_chosen_one() {
    let digest = Digest::of(b"both");
    let entry = |architecture: &str| {
        format!(r#"{{"digest":"{digest}","size":7,"platform":{{"architecture":"{architecture}","os":"linux"}}}}"#)
    };
    let mut shelf = Shelf::default();
    let (a, b) = (entry("amd64"), entry("arm64"));
    let root = shelf.put(MediaType::OCI_INDEX, &format!("{{\"manifests\":[{a},{b}]}}"));
    assert_eq!(shelf.trimmed(&root, &["arm64"]).unwrap(), format!("{{\"manifests\":[{b}]}}"));
}

/// An index of an index: the text of the root around the entry of the nested one, whose members come in any order.
fn nested(shelf: &mut Shelf, more: &str) -> (Descriptor, Descriptor) {
    let inner = format!("{{\"manifests\":[{},{}]}}", child("amd64"), child("arm64"));
    let inner = shelf.put(MediaType::OCI_INDEX, &inner);
    let entry = format!(
        "{{ \"size\" : {}, {more}\"mediaType\":\"{}\", \"d\\u0069gest\": \"{}\", \"annotations\":{{\"size\":\"1\"}} }}",
        inner.size, inner.media_type, inner.digest
    );
    let root = shelf.put(MediaType::OCI_INDEX, &format!("{{\"manifests\":[{entry}, {}]}}", child("s390x")));
    (root, inner)
}

#[test]
fn in_the_entry_of_a_nested_index_digest_and_size_change_and_nothing_else() {
    let mut shelf = Shelf::default();
    let (root, inner) = nested(&mut shelf, "");
    let kept = format!("{{\"manifests\":[{}]}}", child("arm64"));
    let before = String::from_utf8(shelf.read(&root).unwrap().to_vec()).unwrap();
    let expected = before
        .replace(&inner.digest.to_string(), &Digest::of(kept.as_bytes()).to_string())
        .replace(&format!("\"size\" : {}", inner.size), &format!("\"size\" : {}", kept.len()))
        .replace(&format!(", {}", child("s390x")), "");
    assert_eq!(shelf.trimmed(&root, &["arm64"]).unwrap(), expected);

    let (image, made) = shelf.decide(&root, &["arm64"]).trim(|descriptor| shelf.read(descriptor)).unwrap();
    let trimmed = image.trimmed.as_ref().unwrap();
    assert_eq!(
        trimmed.indexes.iter().map(|index| &index.original).collect::<Vec<_>>(),
        [
            &root,
            &Descriptor { platform: None, annotations: [("size".to_owned(), "1".to_owned())].into(), ..inner.clone() }
        ]
    );
    let parents: Vec<Digest> = image.kept.iter().map(|child| child.parent).collect();
    assert_eq!(parents, [image.root.digest, Digest::of(kept.as_bytes())]);
    assert_eq!(image.kept[0].descriptor.digest, Digest::of(kept.as_bytes()));
    // What is made again is the same, and so is the decision that it came from.
    assert_eq!(image.remade(|descriptor| shelf.read(descriptor)).unwrap(), made);
    assert_eq!(image.before_trim(), shelf.decide(&root, &["arm64"]));
}

#[test]
fn a_nested_index_of_which_all_is_kept_stays() {
    let mut shelf = Shelf::default();
    let (root, inner) = nested(&mut shelf, "");
    let (image, _) = shelf.decide(&root, &["arm64", "amd64"]).trim(|descriptor| shelf.read(descriptor)).unwrap();
    assert_eq!(image.trimmed.unwrap().indexes.len(), 1);
    assert_eq!(image.kept[0].descriptor.digest, inner.digest);
}

#[test]
fn where_nothing_is_removed_the_image_is_full() {
    let mut shelf = Shelf::default();
    let root = shelf.put(MediaType::OCI_INDEX, &format!("{{\"manifests\":[{}]}}", child("amd64")));
    let decided = shelf.decide(&root, &["amd64"]);
    let (image, made) = decided.clone().trim(|descriptor| shelf.read(descriptor)).unwrap();
    assert_eq!((image, made.len()), (Image { mode: IndexMode::Full, ..decided }, 0));
}

#[test]
fn hostile_documents_are_refused() {
    let (a, b) = (child("amd64"), child("arm64"));
    let rows = [
        ("two lists", format!("{{\"manifests\":[{a}],\"manif\\u0065sts\":[{a},{b}]}}")),
        ("two digests", format!("{{\"manifests\":[{},{b}]}}", a.replacen('{', "{\"size\":7,", 1))),
        ("deep", format!("{{\"manifests\":[{a},{b}],\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200))),
        ("no JSON behind", format!("{{\"manifests\":[{a},{b}]}}]")),
        ("huge", format!("{{\"manifests\":[{a},{b}]{}}}", " ".repeat(4 << 20))),
        ("a list of texts", "{\"manifests\":[\"a\"]}".to_owned()),
    ];
    for (what, text) in rows {
        let mut shelf = Shelf::default();
        let root = shelf.put(MediaType::OCI_INDEX, &format!("{{\"manifests\":[{a},{b}]}}"));
        let mut image = shelf.decide(&root, &["amd64"]);
        // The decision was about another document.
        image.root = shelf.put(MediaType::OCI_INDEX, &text);
        assert!(image.trim(|descriptor| shelf.read(descriptor)).is_err(), "{what}");
    }
    let mut shelf = Shelf::default();
    let (root, _) = nested(&mut shelf, "\"data\":\"e30=\", ");
    let error = shelf.trimmed(&root, &["arm64"]).unwrap_err();
    assert!(error.to_string().contains("embeds its content"), "{error}");
}

#[test]
fn indexes_that_would_become_one_are_refused() {
    let mut shelf = Shelf::default();
    let mut entry = |other: &str| {
        let inner =
            shelf.put(MediaType::OCI_INDEX, &format!("{{\"manifests\":[{},{}]}}", child("amd64"), child(other)));
        format!("{{\"size\":{},\"mediaType\":\"{}\",\"digest\":\"{}\"}}", inner.size, inner.media_type, inner.digest)
    };
    let root = format!("{{\"manifests\":[{},{}]}}", entry("arm64"), entry("s390x"));
    let root = shelf.put(MediaType::OCI_INDEX, &root);
    assert!(shelf.trimmed(&root, &["amd64"]).unwrap_err().to_string().contains("becomes the same"));
}

#[test]
fn an_index_that_is_listed_ten_thousand_times_is_read_once() {
    let mut shelf = Shelf::default();
    let inner = shelf.put(MediaType::OCI_INDEX, &format!("{{\"manifests\":[{}]}}", child("amd64")));
    let entry =
        format!("{{\"size\":{},\"mediaType\":\"{}\",\"digest\":\"{}\"}}", inner.size, inner.media_type, inner.digest);
    let many = vec![entry; 9_000].join(",");
    let root = shelf.put(MediaType::OCI_INDEX, &format!("{{\"manifests\":[{many},{}]}}", child("arm64")));
    let mut image = shelf.decide(&root, &["amd64"]);
    image.kept.sort_by_key(|child| child.descriptor.digest);
    image.kept.dedup();
    let reads = std::cell::Cell::new(0);
    let (image, _) = image
        .trim(|descriptor| {
            reads.set(reads.get() + 1);
            shelf.read(descriptor)
        })
        .unwrap();
    assert_eq!((reads.get(), image.trimmed.unwrap().indexes.len()), (2, 1));
}

fn signature(shelf: &mut Shelf, subject: &Descriptor, name: &str, tag: bool) -> Signature {
    let layer = Digest::of(name.as_bytes());
    let text = format!(
        "{{\"config\":{{\"digest\":\"{}\",\"size\":2}},\"layers\":[{{\"mediaType\":\"a/b\",\"digest\":\"{layer}\",\"size\":5}}],\
         \"annotations\":{{\"name\":\"{name}\"}}}}",
        Digest::of(b"{}")
    );
    let descriptor = shelf.put(MediaType::OCI_MANIFEST, &text);
    let tag = tag.then(|| Tag::cosign(&subject.digest, "sig"));
    let form = if tag.is_some() { SignatureForm::CosignTag } else { SignatureForm::Referrer };
    Signature { descriptor, subject: subject.digest, form, tag }
}

#[test]
fn the_witness_holds_what_was_signed_and_children_keep_their_own_signatures() {
    let mut shelf = Shelf::default();
    let text = format!("{{\"manifests\":[{},{}]}}", child("amd64"), child("arm64"));
    let root = shelf.put(MediaType::OCI_INDEX, &text);
    let decided = shelf.decide(&root, &["amd64"]);
    let kept = decided.kept[0].descriptor.clone();
    let of_root = signature(&mut shelf, &root, "root", true);
    let counter = signature(&mut shelf, &of_root.descriptor, "counter", false);
    let of_child = signature(&mut shelf, &kept, "child", false);
    let orders = [[&of_root, &counter, &of_child], [&of_child, &counter, &of_root]];
    let made: Vec<(Image, Vec<Made>)> = orders
        .map(|order| Image { signatures: order.map(Signature::clone).into(), ..decided.clone() })
        .into_iter()
        .map(|image| image.trim(|descriptor| shelf.read(descriptor)).unwrap())
        .collect();
    // Whoever answered first.
    assert_eq!(made[0], made[1]);
    let (image, made) = &made[0];
    let trimmed = image.trimmed.as_ref().unwrap();
    let witness = made.iter().find(|made| made.descriptor == trimmed.witness).unwrap();
    let manifest = Manifest::parse(&MediaType::OCI_MANIFEST, &witness.bytes).unwrap();
    assert!(Witness::is(&manifest));
    assert_eq!(manifest.subject.as_ref().unwrap().digest, image.root.digest);
    let Content::Image { layers, .. } = &manifest.content else { panic!() };
    // The index, two signatures, their one config, and a payload of each.
    assert_eq!(layers.len(), 1 + 2 + 1 + 2);
    let read = Witness::parse(&manifest).unwrap();
    assert_eq!(read.original, root);
    assert_eq!(read.indexes, [(image.root.digest, root.clone())].into());
    let mut expected = vec![of_root.clone(), counter];
    expected.sort_by_key(|signature| signature.descriptor.digest);
    assert_eq!((&read.signatures, &trimmed.signatures), (&expected, &expected));
    // What travels as it is: the child's signature and the witness.
    let named: Vec<(Digest, Digest)> =
        image.signatures.iter().map(|signature| (signature.descriptor.digest, signature.subject)).collect();
    assert_eq!(named, [(of_child.descriptor.digest, kept.digest), (trimmed.witness.digest, image.root.digest)]);
}

#[test]
fn a_witness_that_would_be_too_large_is_refused_with_what_to_do() {
    let mut shelf = Shelf::default();
    let text = format!("{{\"manifests\":[{},{}]}}", child("amd64"), child("arm64"));
    let root = shelf.put(MediaType::OCI_INDEX, &text);
    let mut image = shelf.decide(&root, &["amd64"]);
    let signatures = (0..2_500).map(|number| signature(&mut shelf, &root, &number.to_string(), false));
    image.signatures = signatures.collect();
    let error = image.trim(|descriptor| shelf.read(descriptor)).unwrap_err();
    assert!(error.help_text().unwrap().contains("carry: none"), "{error:?}");
}

#[test]
fn a_changed_decision_is_not_made_again() {
    let mut shelf = Shelf::default();
    let (root, _) = nested(&mut shelf, "");
    let (image, _) = shelf.decide(&root, &["arm64"]).trim(|descriptor| shelf.read(descriptor)).unwrap();
    let mut changed = image.clone();
    changed.root.digest = Digest::of(b"another");
    assert!(changed.remade(|descriptor| shelf.read(descriptor)).is_err());
    let mut changed = image.clone();
    changed.kept.pop();
    assert!(changed.remade(|descriptor| shelf.read(descriptor)).is_err());
    // Whoever reads the bundle would refuse it, with all the others in it.
    let mut changed = image;
    changed.trimmed = None;
    assert!(changed.remade(|descriptor| shelf.read(descriptor)).is_err());
}

/// What a comparison says of a trimmed index after `change` of its text.
fn compared(change: impl Fn(String) -> String) -> Result<Compared, String> {
    let mut shelf = Shelf::default();
    let text = format!("{{\"manifests\": [{}, {}, {}] }}", child("amd64"), child("arm64"), child("s390x"));
    let root = shelf.put(MediaType::OCI_INDEX, &text);
    let trimmed = shelf.put(MediaType::OCI_INDEX, &change(shelf.trimmed(&root, &["amd64", "s390x"]).unwrap()));
    let read = |descriptor: &Descriptor| shelf.read(descriptor).unwrap();
    compare((&root, &read(&root)), (&trimmed, &read(&trimmed)), &HashMap::new())
}

#[test]
fn a_trimmed_index_is_compared_with_its_original() {
    let good = compared(|text| text).unwrap();
    assert_eq!((good.kept.len(), good.removed.len(), good.nested.len()), (2, 1, 0));
    type Change = fn(String) -> String;
    let rows: [(&str, Change, &str); 5] = [
        ("another child", |text| text.replace("\"size\":7", "\"size\":8"), "is not listed in the original"),
        ("another platform", |text| text.replace("s390x\"}", "riscv64\"}"), "is not listed in the original"),
        (
            "another order",
            |text| {
                let (a, s) = (child("amd64"), child("s390x"));
                text.replace(&a, "A").replace(&s, &a).replace('A', &s)
            },
            "is not listed in the original",
        ),
        ("an annotation", |text| text.replacen('{', "{\"annotations\":{},", 1), "more than members was changed"),
        ("white space", |text| text + "\n", "more than members was changed"),
    ];
    for (what, change, why) in rows {
        let said = compared(change).unwrap_err();
        assert!(said.contains(why), "{what}: {said}");
    }
}

#[test]
fn nested_indexes_are_compared_too() {
    let mut shelf = Shelf::default();
    let (root, _) = nested(&mut shelf, "");
    let (image, made) = shelf.decide(&root, &["arm64"]).trim(|descriptor| shelf.read(descriptor)).unwrap();
    made.iter().for_each(|made| _ = shelf.0.insert(made.descriptor.digest, made.bytes.clone()));
    let read = |descriptor: &Descriptor| shelf.read(descriptor).unwrap();
    let trimmed = image.trimmed.unwrap();
    let originals = trimmed.indexes.iter().map(|index| (index.trimmed.digest, index.original.clone())).collect();
    let compare = |index: &TrimmedIndex| {
        let (before, after) = (read(&index.original), read(&index.trimmed));
        compare((&index.original, &before), (&index.trimmed, &after), &originals)
    };
    let outer = compare(&trimmed.indexes[0]).unwrap();
    assert_eq!(
        outer.nested.iter().map(|index| index.trimmed.digest).collect::<Vec<_>>(),
        [trimmed.indexes[1].trimmed.digest]
    );
    assert_eq!(compare(&outer.nested[0]).unwrap().removed.len(), 1);
}

#[test]
fn what_is_said_about_trimming_agrees_with_itself() {
    let mut shelf = Shelf::default();
    let (root, _) = nested(&mut shelf, "");
    let (image, _) = shelf.decide(&root, &["arm64"]).trim(|descriptor| shelf.read(descriptor)).unwrap();
    assert_eq!(image.check_trimmed(), Ok(()));
    let changed: [fn(&mut Image); 4] = [
        |image| image.trimmed = None,
        |image| image.mode = IndexMode::Sparse,
        |image| image.root.digest = Digest::of(b"another"),
        |image| image.signatures.clear(),
    ];
    for change in changed {
        let mut image = image.clone();
        change(&mut image);
        assert!(image.check_trimmed().is_err());
    }
}

/// JSON that a member nobody knows may hold.
fn anything() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![any::<i64>().prop_map(Value::from), any::<String>().prop_map(Value::from), Just(Value::Null)];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("x[\"\\\\ ,\\]]{0,3}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// What a parser reads of the trimmed text is what it read of the original, without the removed members.
    #[test]
    fn whatever_the_document_holds_members_are_removed_and_nothing_else(
        children in prop::collection::vec((any::<bool>(), anything()), 1..6),
        others in prop::collection::vec(("x[a-z\"\\\\]{0,4}", anything()), 0..4),
        pretty in any::<bool>(),
    ) {
        let entry = |(at, (keep, more)): (usize, &(bool, Value))| {
            let architecture = if *keep { "amd64" } else { "arm64" };
            json!({"xmore": more, "digest": Digest::of(&at.to_le_bytes()), "size": at,
                "platform": {"os": "linux", "architecture": architecture}})
        };
        let entries: Vec<Value> = children.iter().enumerate().map(entry).collect();
        let mut document: serde_json::Map<String, Value> = others.into_iter().collect();
        document.insert("manifests".into(), entries.clone().into());
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let mut shelf = Shelf::default();
        let root = shelf.put(MediaType::OCI_INDEX, &text);
        let trimmed = shelf.trimmed(&root, &["amd64"]).unwrap();
        let kept: Vec<Value> =
            entries.into_iter().zip(&children).filter(|(_, (keep, _))| *keep).map(|(entry, _)| entry).collect();
        document.insert("manifests".into(), kept.into());
        prop_assert_eq!(serde_json::from_str::<Value>(&trimmed).unwrap(), Value::Object(document));
        // What is left is trimmed already.
        let again = shelf.put(MediaType::OCI_INDEX, &trimmed);
        prop_assert_eq!(shelf.trimmed(&again, &["amd64"]).unwrap(), trimmed);
    }
}
