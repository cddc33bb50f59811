"""Words of English captions by what they do in a prompt: the tables of the rules in `shorten`.

Chosen by hand for captions of photos of people; what is in no table is taken for a noun and stays.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PERSONS = _words("""
    person persons people human humans man men woman women boy boys girl girls lady ladies gentleman gentlemen guy
    guys male males female females adult adults child children kid kids baby babies toddler toddlers teenager
    teenagers teen teens youth infant couple couples family families group crowd pair trio team friend friends
    mother father mom dad mum parent parents son daughter sister brother sisters brothers grandmother grandfather
    grandma grandpa husband wife bride brides groom bridesmaid bridesmaids model models dancer dancers ballerina
    athlete athletes player players worker workers student students teacher teachers doctor doctors nurse nurses
    soldier soldiers police officer officers chef chefs cook waiter waitress singer singers musician musicians
    guitarist drummer performer performers actor actress tourist tourists photographer skier skiers snowboarder
    surfer surfers skateboarder swimmer runner runners rider riders cyclist cyclists biker climber hiker hikers
    golfer batter pitcher catcher driver farmer fisherman businessman businessmen businesswoman businesswomen
    policeman fireman firefighter cowboy king queen prince princess monk nun priest lawyer engineer artist painter
    barista barber customer passenger pedestrian pedestrians commuters shopper vendor speaker host bartender
    carpenter mechanic scientist boxer wrestler gymnast yogi influencer celebrity individual individuals someone
    somebody sportsman sportswoman clown lifeguard trainer coach referee guest guests
    """)

# What says who the person is stays, all other adjectives go.
KEPT = _words("""
    young old elderly older younger middle-aged teenage pregnant bald african asian indian chinese japanese korean
    european american african-american latina latino hispanic caucasian arab muslim middle-eastern mexican british
    english french german italian spanish russian thai vietnamese
    """)

# Of things these are like any other adjective: "an old wall".
AGES = _words("young old older younger")

COLOURS = _words("""
    black white gray grey blue red green yellow orange pink purple beige navy teal golden silver cream brown tan
    maroon burgundy turquoise violet lavender khaki olive crimson scarlet ivory magenta cyan blonde blond brunette
    pastel mustard coral peach charcoal indigo rose
    """)

ADJECTIVES = COLOURS | _words("""
    big small large little tiny huge tall short long medium wide narrow thick thin slim slender skinny chubby
    muscular fit curvy petite heavy light dark bright pale fair deep soft hard sharp smooth rough sleek shiny glossy
    matte warm cool cold hot wet dry clean dirty new vintage retro modern contemporary classic classical traditional
    trendy stylish chic elegant sophisticated luxurious fancy formal casual informal sporty athletic simple plain
    basic sheer tight loose baggy fitted tailored oversized cropped strapless sleeveless short-sleeved long-sleeved
    ripped torn distressed faded striped checked checkered plaid floral dotted spotted patterned printed embroidered
    textured quilted knitted knit ribbed pleated ruffled layered flared straight curly wavy shoulder-length messy
    neat tousled silky fluffy fuzzy furry cozy comfy pretty handsome cute sexy lovely gorgeous happy sad angry
    serious calm thoughtful pensive confident proud relaxed focused intense gentle kind friendly cheerful joyful
    playful shy strong weak healthy tired lonely quiet busy crowded empty open closed blurry blurred sunny cloudy
    rainy snowy foggy misty windy dusty sandy rocky grassy leafy lush rustic urban rural natural artificial dramatic
    cinematic moody dreamy ethereal magical mystical majestic mysterious romantic nostalgic serene tranquil peaceful
    idyllic picturesque scenic exotic tropical vibrant vivid rich subtle delicate intricate ornate detailed minimal
    minimalist minimalistic abstract realistic photorealistic perfect ideal nice good great fine fresh young-looking
    wonderful incredible unique rare strange unusual special various different several similar cloudless clear
    distant nearby spacious cramped ancient medieval gothic victorian futuristic industrial rugged weathered worn
    historic iconic famous candid captivating stunning striking charming breathtaking amazing interesting matching
    contrasting revealing plunging flowing flowy bustling glowing sparkling shimmering shining flattering dazzling
    welcoming inviting towering winding surrounding appealing engaging piercing asymmetrical floor-length
    high-waisted off-the-shoulder high low full round oval square rectangular pointed slight radiant elegant-looking
    well-lit well-dressed overall main commercial multiple lit chunky foreign wide-leg colourful colorful monochrome
    dim ambient
    """)

# Words with the endings of adjectives or adverbs that are something else.
NOT_ADJECTIVES = _words("""
    table vegetable vegetables cable stable detective olive archive fish dish finish rubbish radish handful spoonful
    five drive dive live give hive executive bed shed seed weed sled bobsled family butterfly belly jelly lily bully
    ally rally assembly supply only italy july fly ply early holy ugly elderly t-shirt close-up bull-riding
    """)

INTENSIFIERS = _words("very quite rather extremely so too really highly super incredibly almost more most")

DETERMINERS = _words(
    "a an the his her their its my your our this these those some another each both one two three four"
)

PREPOSITIONS = _words("""
    in on at with without of by near beside behind under over above below between among through across along around
    against inside outside into onto from to toward towards next for during atop beneath up down off amid amidst
    like
    """)

PRONOUNS = _words("he she they it")
BE = _words("is are was were be been being")
JOINS = _words("and or but & then")
FUNCTION = DETERMINERS | PREPOSITIONS | PRONOUNS | BE | JOINS | _words("who which that while as has have , ( ) : - – —")

ACTIONS = _words("""
    stand sit wear hold look smile walk ride play pose lean carry talk eat drink run jump swim cook read write dance
    sing lie lay kneel crouch squat work use ski surf skate skateboard snowboard hike climb cycle drive cut brush
    hug kiss laugh wave point gaze stare speak sleep rest relax stretch blow balance throw catch kick hit swing
    serve fish fly push pull lift raise touch type paint draw take prepare put show reach cross clasp bend perform
    celebrate gather pet feed watch listen enjoy shop wait face grin chat jog cheer embrace sip bite tie adjust fold
    place turn shake
    """)
DOUBLED = _words("sit run swim cut hug put hit jog grin chat pet shop get sip")

# Participles that comment on the picture instead of saying what a person does.
COMMENTS = _words("""
    creating giving adding making evoking suggesting conveying exuding showcasing complementing highlighting
    emphasizing emphasising reflecting indicating enhancing providing contributing accentuating revealing lending
    casting framing drawing capturing radiating expressing displaying featuring depicting completing blending
    matching illuminating illuminated complemented accented adorned paired captured taken shot lit rendered framed
    accompanied highlighted
    """)

PARTICIPLES = _words(
    "dressed seated clad surrounded dressed covered wrapped positioned posed perched situated gathered"
)

NOT_PARTICIPLES = _words("""
    building wedding evening morning clothing ceiling painting ring king wing string spring thing railing crossing
    earring sling something nothing everything anything lighting parking living dining swimming shopping bathing
    during
    """)

SEEN = _words("seen shown depicted pictured captured photographed featured visible")

WEARABLES = _words("""
    shirt shirts t-shirt tshirt blouse sweater sweatshirt hoodie cardigan jumper jacket blazer coat cape vest suit
    tuxedo tie dress gown skirt romper bodysuit jumpsuit pants trousers jeans shorts leggings tights stockings socks
    shoes boots heels pumps flats sneakers sandals loafers wedges clogs hat cap beanie helmet scarf gloves belt
    glasses sunglasses watch bracelet necklace earrings uniform costume robe kimono sari saree hijab turban bikini
    swimsuit apron tank top tunic overalls lingerie veil crown mask backpack bag purse handbag wallet polo
    """)
# Of these a person wears one, so they take an article after "in".
PLURAL_WEARABLES = _words("""
    pants trousers jeans shorts leggings tights stockings socks shoes boots heels pumps flats sneakers sandals
    loafers wedges clogs gloves glasses sunglasses earrings overalls shirts lingerie
    """)

NON_HUMAN = _words("""
    background backgrounds backdrop foreground lighting light sky skies atmosphere scenery landscape clouds sun
    sunlight shadow shadows mood vibe tone tones composition color colors colour colours setting scene trees tree
    mountains mountain buildings skyscrapers cars leaves reflections horizon weather figure body
    """)

# What all people have: without an adjective it says nothing.
FEATURES = _words(
    "hair skin eyes eye face lips complexion makeup features expression eyebrows smile physique build head sleeves"
)

HAIRDOS = _words("bun ponytail braid braids pigtails")

LISTING = _words("wearing in with holding carrying")

QUALITY = _words("""
    8k 4k 16k uhd hd hdr masterpiece photorealistic photorealism photo-realistic hyperrealistic hyper-realistic
    ultra-realistic ultrarealistic realism realistic artstation deviantart cgsociety octane unreal bokeh dslr raw
    render rendered cgi sharp focus photography photograph cinematic depth-of-field grain film award-winning
    trending detailed quality resolution aesthetic canon nikon sony fujifilm leica kodak hasselblad 35mm 50mm 85mm
    f/1.4 f/1.8 f/2.8 iso lens stock high-quality high-resolution best-quality hi-res highres absurdres solo
    """)
