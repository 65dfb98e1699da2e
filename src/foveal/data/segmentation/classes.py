"""Names, colours and label values of the published sets.

Sources: Pascal VOC 2012 development kit; MIT scene parsing benchmark (ADE20K), its objectInfo150; cityscapesScripts.
"""

from __future__ import annotations

RGB = tuple[int, int, int]

VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
DIGITS = ("background", *"0123456789")

_ADE20K = (
    "wall,building,sky,floor,tree,ceiling,road,bed,windowpane,grass,cabinet,sidewalk,person,earth,door,table,mountain,"
    "plant,curtain,chair,car,water,painting,sofa,shelf,house,sea,mirror,rug,field,armchair,seat,fence,desk,rock,"
    "wardrobe,lamp,bathtub,railing,cushion,base,box,column,signboard,chest of drawers,counter,sand,sink,skyscraper,"
    "fireplace,refrigerator,grandstand,path,stairs,runway,case,pool table,pillow,screen door,stairway,river,bridge,"
    "bookcase,blind,coffee table,toilet,flower,book,hill,bench,countertop,stove,palm,kitchen island,computer,"
    "swivel chair,boat,bar,arcade machine,hovel,bus,towel,light,truck,tower,chandelier,awning,streetlight,booth,"
    "television receiver,airplane,dirt track,apparel,pole,land,bannister,escalator,ottoman,bottle,buffet,poster,stage,"
    "van,ship,fountain,conveyer belt,canopy,washer,plaything,swimming pool,stool,barrel,basket,waterfall,tent,bag,"
    "minibike,cradle,oven,ball,food,step,tank,trade name,microwave,pot,animal,bicycle,lake,dishwasher,screen,blanket,"
    "sculpture,hood,sconce,vase,traffic light,tray,ashcan,fan,pier,crt screen,plate,monitor,bulletin board,shower,"
    "radiator,glass,clock,flag"
)
ADE20K = tuple(_ADE20K.split(","))

# Name, value in labelIds files, colour; the place in this table is the value in labelTrainIds files.
_CITYSCAPES: tuple[tuple[str, int, RGB], ...] = (
    ("road", 7, (128, 64, 128)), ("sidewalk", 8, (244, 35, 232)), ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)), ("fence", 13, (190, 153, 153)), ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)), ("traffic sign", 20, (220, 220, 0)), ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)), ("sky", 23, (70, 130, 180)), ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)), ("car", 26, (0, 0, 142)), ("truck", 27, (0, 0, 70)), ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)), ("motorcycle", 32, (0, 0, 230)), ("bicycle", 33, (119, 11, 32)),
)  # fmt: skip
CITYSCAPES = tuple(name for name, _, _ in _CITYSCAPES)
CITYSCAPES_IDS = tuple(value for _, value, _ in _CITYSCAPES)
CITYSCAPES_VALUES = 34
CITYSCAPES_COLOURS = tuple(colour for _, _, colour in _CITYSCAPES)


def voc_colours(count: int) -> tuple[RGB, ...]:
    """The colours of the development kit: the bits of a number, three by three, from the highest of a channel down."""
    return tuple(_voc_colour(number) for number in range(count))


def _voc_colour(number: int) -> RGB:
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]
