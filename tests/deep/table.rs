//! Every layer that is good, every one that is not, and what is said of each: from a bundle and from a store.

use sealift::Kind;
use sealift::layers::{NotChecked, Why};
use sealift::oci::{Digest, MediaType};
use sealift::sample::SampleImage;
use serde_json::json;
use zstd::stream::raw::CParameter;

use crate::made::{
    DOCKER_GZIP, DOCKER_TAR, DOCKER_ZSTD, FOREIGN, GZIP, Layer, TAR, ZSTD, announcing_frame, archive, gzip, image,
    image_of, image_with, skippable, zeros_frame, zstd, zstd_with,
};
use crate::{MIB, World, problems};

/// Layers as clients take them: what each is, its media type, its bytes, and what comes out.
fn good() -> Vec<(&'static str, Layer)> {
    let (one, other) = (archive(1, 300_000), archive(2, 5_000));
    let both = [one.clone(), other.clone()].concat();
    let members = [gzip(&one), gzip(&other)].concat();
    let frames = [zstd(&one), zstd(&other)].concat();
    let chunked = [skippable(b""), zstd(&one), skippable(&[1; 500]), zstd(&other), skippable(b"toc")].concat();
    let long = zstd_with(&both, &[CParameter::WindowLog(27)]);
    let sha512 = Layer { diff_id: Digest::Sha512([0; 64]).same_algorithm_of(&one).to_string(), ..plain(GZIP, &one) };
    let empty = Layer::new(GZIP, gzip(b""), b"");
    vec![
        ("tar", plain(TAR, &one)),
        ("an empty tar", plain(TAR, b"")),
        ("gzip", plain(GZIP, &one)),
        ("gzip of nothing", empty),
        ("gzip of a byte", plain(GZIP, b"x")),
        ("gzip in members", Layer::new(GZIP, members, &both)),
        (
            "gzip with an empty member",
            Layer::new(GZIP, [gzip(&one), gzip(b""), gzip(b"x")].concat(), &[&one, &b"x"[..]].concat()),
        ),
        ("zstd", plain(ZSTD, &one)),
        ("zstd of nothing", Layer::new(ZSTD, zstd(b""), b"")),
        ("zstd in frames", Layer::new(ZSTD, frames, &both)),
        ("zstd with skippable frames", Layer::new(ZSTD, chunked, &both)),
        ("zstd with the largest window", Layer::new(ZSTD, long, &both)),
        ("zstd of many zeros", Layer::new(ZSTD, zeros_frame(23, 200), &vec![0; 200 * 128 * 1024])),
        ("docker's gzip", plain(DOCKER_GZIP, &other)),
        ("docker's zstd", Layer::new(DOCKER_ZSTD, zstd(&other), &other)),
        ("docker's tar", plain(DOCKER_TAR, &other)),
        ("docker's tar that is gzip", Layer::new(DOCKER_TAR, gzip(&both), &both)),
        ("docker's tar that is zstd", Layer::new(DOCKER_TAR, zstd(&both), &both)),
        ("a diff_id of sha512", sha512),
    ]
}

/// A layer that is packed as its media type says.
fn plain(media_type: &'static str, content: &[u8]) -> Layer {
    let bytes = match media_type {
        GZIP | DOCKER_GZIP => gzip(content),
        ZSTD | DOCKER_ZSTD => zstd(content),
        _ => content.to_vec(),
    };
    Layer::new(media_type, bytes, content)
}

fn changed(mut layer: Layer, change: impl FnOnce(&mut Vec<u8>)) -> Layer {
    change(&mut layer.bytes);
    layer
}

/// Layers that are not what their images say: what each is, and what is said of it.
fn bad() -> Vec<(&'static str, Layer, &'static str)> {
    let content = archive(3, 200_000);
    let (tar, gz, zst) = (plain(TAR, &content), plain(GZIP, &content), plain(ZSTD, &content));
    let other = |layer: &Layer| Layer { diff_id: Digest::of(b"other").to_string(), ..layer.clone() };
    let typed = |media_type, layer: &Layer| Layer { media_type, ..layer.clone() };
    let last = |back: usize| {
        move |bytes: &mut Vec<u8>| {
            let at = bytes.len() - back;
            bytes[at] ^= 1
        }
    };
    let cut = |length: usize| move |bytes: &mut Vec<u8>| bytes.truncate(length);
    let add = |more: &'static [u8]| move |bytes: &mut Vec<u8>| bytes.extend_from_slice(more);
    vec![
        ("another tar", other(&tar), "what comes out has another digest than its image says"),
        ("another gzip", other(&gz), "what comes out has another digest than its image says"),
        ("another zstd", other(&zst), "what comes out has another digest than its image says"),
        ("gzip, cut in its body", changed(gz.clone(), cut(50_000)), "its gzip stream is damaged, or ends too early"),
        ("gzip, cut in its header", changed(gz.clone(), cut(5)), "its gzip stream is damaged, or ends too early"),
        (
            "gzip, cut before its length",
            changed(gz.clone(), |bytes| bytes.truncate(bytes.len() - 4)),
            "its gzip stream is damaged, or ends too early",
        ),
        ("gzip of no byte", changed(gz.clone(), cut(0)), "its gzip stream is damaged, or ends too early"),
        ("gzip with a wrong length", changed(gz.clone(), last(1)), "its gzip stream is damaged"),
        ("gzip with a wrong checksum", changed(gz.clone(), last(5)), "its gzip stream is damaged"),
        ("gzip with damage", changed(gz.clone(), |bytes| bytes[60_000] ^= 1), "its gzip stream is damaged"),
        ("gzip and garbage", changed(gz.clone(), add(b"garbage, and more of it")), "or is followed by other bytes"),
        ("gzip and zeros", changed(gz.clone(), add(&[0; 512])), "or is followed by other bytes"),
        ("gzip and half a member", changed(gz.clone(), add(&[0x1f, 0x8b, 8])), "or is followed by other bytes"),
        ("zstd, cut in its body", changed(zst.clone(), cut(50_000)), "its last zstd frame ends too early"),
        ("zstd, cut in its header", changed(zst.clone(), cut(5)), "its last zstd frame ends too early"),
        ("zstd of no byte", changed(zst.clone(), cut(0)), "it is empty, and not even a zstd frame"),
        ("zstd with a wrong checksum", changed(zst.clone(), last(1)), "its zstd stream is damaged: "),
        (
            "zstd and garbage",
            changed(zst.clone(), add(b"garbage")),
            "what stands where a zstd frame should begin is none",
        ),
        ("zstd and half a frame", changed(zst.clone(), add(&[0x28, 0xb5, 0x2f])), "its last zstd frame ends too early"),
        (
            "garbage as gzip",
            typed(GZIP, &plain(TAR, b"garbage")),
            "by its first bytes it is not compressed, which is not what its media type says",
        ),
        (
            "garbage as zstd",
            typed(ZSTD, &plain(TAR, b"garbage")),
            "by its first bytes it is not compressed, which is not what its media type says",
        ),
        ("zstd as gzip", typed(GZIP, &zst), "by its first bytes it is zstd, which is not what its media type says"),
        ("gzip as zstd", typed(ZSTD, &gz), "by its first bytes it is gzip, which is not what its media type says"),
        ("gzip as tar", typed(TAR, &gz), "by its first bytes it is gzip, which is not what its media type says"),
        ("zstd as tar", typed(TAR, &zst), "by its first bytes it is zstd, which is not what its media type says"),
        (
            "a window of 2^28",
            Layer::new(ZSTD, zeros_frame(28, 1), &[0; 128 * 1024]),
            "wants a window of 268435456 bytes, more than the 134217728",
        ),
        (
            "a window of 2^41",
            Layer::new(ZSTD, zeros_frame(41, 1), &[0; 128 * 1024]),
            "wants a window of 2199023255552 bytes",
        ),
        (
            "a late window of 2^31",
            Layer::new(ZSTD, [zstd(&content), zeros_frame(31, 1)].concat(), &content),
            "wants a window of 2147483648 bytes",
        ),
        (
            "16 EiB that are announced",
            Layer::new(ZSTD, announcing_frame(u64::MAX), b""),
            "bytes come out of it: it is taken for a bomb",
        ),
        (
            "5 GiB that are announced",
            Layer::new(ZSTD, announcing_frame(5 << 30), b""),
            "bytes come out of it: it is taken for a bomb",
        ),
    ]
}

fn named<T>(prefix: &str, rows: &[T], image: impl Fn(&T) -> SampleImage) -> Vec<(String, SampleImage)> {
    rows.iter().enumerate().map(|(number, row)| (format!("{prefix}/{number}"), image(row))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn good_layers_are_good() {
    let rows = good();
    let mut images = named("good", &rows, |(_, layer)| image(std::slice::from_ref(layer)));
    // All in one image, so every layer is shared.
    let all: Vec<Layer> = rows.iter().map(|(_, layer)| layer.clone()).collect();
    images.push(("good/all".into(), image(&all)));
    let world = World::of(&images).await;
    let bundle = world.verify(&[world.export(100 * MIB as u64).await]);
    let store = world.verify_store();
    assert_eq!((bundle.verdict(), store.verdict()), (None, None), "{:#?}\n{:#?}", bundle.deep, store.deep);
    assert_eq!(bundle.deep, store.deep);
    let deep = bundle.deep.unwrap();
    assert_eq!(deep.layers, rows.len() as u64 - 1, "two rows are the same layer with diff_ids of two algorithms");
    assert!(deep.not_checked.is_empty());
    assert_eq!(store.images.len(), images.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_layers_are_named_and_the_others_are_checked() {
    let rows = bad();
    let mut images = named("bad", &rows, |(_, layer, _)| image(std::slice::from_ref(layer)));
    let sound = plain(GZIP, &archive(9, 1_000));
    images.push(("good".into(), image(std::slice::from_ref(&sound))));
    let world = World::of(&images).await;
    let bundle = world.verify(&[world.export(100 * MIB as u64).await]);
    let store = world.verify_store();
    assert_eq!((bundle.verdict(), store.verdict()), (Some(Kind::Verification), Some(Kind::Verification)));
    assert_eq!(bundle.deep, store.deep);
    assert!(bundle.images.iter().all(|image| image.problem.is_none()), "all of it is what was signed");
    let deep = bundle.deep.unwrap();
    for (number, (name, layer, says)) in rows.iter().enumerate() {
        let found = problems(&deep, &world.name(&format!("bad/{number}")));
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert!(found[0].contains(says) && !found[0].contains('\n'), "{name}: {found:?}");
        let image = world.name(&format!("bad/{number}"));
        let failure = deep.failures.iter().find(|failure| failure.image == image).unwrap();
        assert_eq!(failure.layer, Some(Digest::of(&layer.bytes)), "{name}");
        assert_eq!((failure.position, failure.expected), (Some(1), layer.diff_id.parse().ok()), "{name}");
    }
    assert_eq!((deep.failures.len(), deep.layers), (rows.len(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_must_name_each_layer() {
    let layers = [plain(GZIP, b"one"), plain(ZSTD, b"two")];
    let ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let rows = [
        ("one too few", json!({"diff_ids": ids[..1]}), "it names 1 diff_ids, and the manifest lists 2 layers"),
        ("one too many", json!({"diff_ids": [ids[0], ids[1], ids[1]]}), "it names 3 diff_ids"),
        ("none", json!({}), "it names 0 diff_ids"),
        ("no rootfs", json!(null), "it names 0 diff_ids"),
        ("no digest", json!({"diff_ids": [ids[0], "sha256:../../etc"]}), "it is not readable: "),
        ("no list", json!({"diff_ids": 7}), "it is not readable: "),
    ];
    let mut images = named("config", &rows, |(_, rootfs, _)| image_with(&layers, rootfs));
    images.push(("swapped".into(), image_with(&layers, &json!({"diff_ids": [ids[1], ids[0]]}))));
    let world = World::of(&images).await;
    let deep = world.verify(&[world.export(MIB as u64).await]).deep.unwrap();
    assert_eq!(world.verify_store().deep.as_ref(), Some(&deep));
    for (number, (name, _, says)) in rows.iter().enumerate() {
        let found = problems(&deep, &world.name(&format!("config/{number}")));
        assert!(found.len() == 1 && found[0].contains(says), "{name}: {found:?}");
    }
    let swapped = world.name("swapped");
    let swapped: Vec<_> = deep.failures.iter().filter(|failure| failure.image == swapped).collect();
    let positions: Vec<_> = swapped.iter().map(|failure| failure.position).collect();
    assert_eq!(positions, [Some(1), Some(2)]);
    let found: Vec<_> = swapped.iter().map(|failure| failure.found.unwrap().to_string()).collect();
    assert_eq!(found, ids, "what comes out is named");
    assert_eq!(deep.layers, 0, "a layer counts when every image that lists it is right");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_layer_is_counted_and_never_unpacked() {
    let statement = Layer::new("application/vnd.in-toto+json", b"{}".to_vec(), b"{}");
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    let images = [
        (
            "chart",
            image_of(
                &[Layer::new("application/vnd.cncf.helm.chart.content.v1.tar+gzip", gzip(b"chart"), b"")],
                &MediaType::new("application/vnd.cncf.helm.config.v1+json"),
                &json!(null),
            ),
        ),
        // A true layer type below a config that is none of an image.
        (
            "module",
            image_of(&[plain(GZIP, b"wasm")], &MediaType::new("application/vnd.wasm.config.v0+json"), &json!(null)),
        ),
        ("statement", image_with(&[statement.clone(), statement.clone()], &json!({"diff_ids": []}))),
        ("mixed", image(&[plain(GZIP, b"layer"), Layer::new(encrypted, b"secret".to_vec(), b"x")])),
        ("foreign", image(&[Layer::new(FOREIGN, gzip(b"far away"), b"far away"), plain(GZIP, b"near")])),
    ];
    let images = images.map(|(name, image)| (name.to_owned(), image));
    let world = World::of(&images).await;
    let report = world.verify(&[world.export(MIB as u64).await]);
    let store = world.verify_store();
    assert_eq!((report.verdict(), store.verdict()), (None, None), "{report:#?}\n{store:#?}");
    assert_eq!(report.deep, store.deep);
    let deep = report.deep.unwrap();
    assert_eq!(deep.layers, 2, "of the mixed and the foreign one");
    let expected = [
        ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", Why::NoLayer),
        (FOREIGN, Why::Foreign),
        ("application/vnd.in-toto+json", Why::NoLayer),
        (GZIP, Why::NoLayer),
        (encrypted, Why::NoLayer),
    ];
    let expected = expected.map(|(text, why)| NotChecked { media_type: MediaType::new(text), why, layers: 1 });
    assert_eq!(deep.not_checked, expected);
}
