"""What tests do with a generator's raw output."""

from regionedit.masks import composite


def edited(generator, images_BCHW, region, requests, captions, seeds):
    """Pictures that were repainted inside the region and composited with their sources."""
    return composite(generator.repaint(images_BCHW, region, requests, captions, seeds), images_BCHW, region.mask_B1HW)


def decoded(generator, *arguments):
    """The pictures of `differentiable_latents`."""
    latents_BCyx, decode = generator.differentiable_latents(*arguments)
    return decode(latents_BCyx)
