"""ESDNet: a spiking U-Net that removes rain from a single image (Song et al., IJCAI 2024), on snnTorch LIF neurons."""
