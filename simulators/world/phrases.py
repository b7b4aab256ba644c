"""The words of both sides of a film conversation, as data: each line is one phrase with `{either|or}` choices.

Slots such as `<title>` stand for facts of the item card. A phrase may be used only where the card has its slots.
Keys of the tables are the degrees of the reply attributes that a phrase leans to.
"""

OPENERS = {
    "warm": (
        "{Hello friend|Hi there, friend|Hello, dear film lover}, {glad you asked|so glad to help|happy to help}.",
        "{Thanks|Thank you} for {asking|telling me|sharing that}, {it is a pleasure|I am happy to help|I am glad you did}.",
        "{Welcome back|Welcome}, {let us find you something cosy|I hope your day was kind|it is lovely to talk}.",
        "{What a lovely wish|That sounds lovely}, {and I am happy to help|and I hope I can help|let us find it together}.",
        "I {am delighted|am so happy|am very glad} to {look with you|help you choose|be of help}.",
        "{I hope you are well|I hope you had a gentle day}.",
    ),
    "plain": (
        "{Sure|Okay|All right|Right}.",
        "{Here is one|Here you go|Try this}.",
        "{Got it|I see|Fine}.",
    ),
    "elaborate": (
        "{Certainly|Naturally|Understood}, {permit me to suggest something appropriate|I have considered your request carefully}.",
        "{Considering your preferences|Having considered the available possibilities}, {one recommendation emerges|a particular selection stands apart}.",
    ),
}

AGAIN = {
    "warm": (
        "{I am sorry that one missed|Sorry about that, friend}, {let us try again together|I hope this one is kinder to you}.",
        "{Thank you for being honest|Thanks for telling me}, {that helps me care for your taste|I am glad to look again}.",
    ),
    "plain": (
        "{Then try this|Next one|One more|Let me try again}.",
        "{Fair|Okay, not that one|No problem}.",
    ),
    "elaborate": (
        "{Understandably, that suggestion proved unsuitable|Evidently that proposal disappointed}, {so allow me an alternative|let us reconsider}.",
        "{Appreciating your observations|Acknowledging that response}, {I shall recommend differently|an alternative follows}.",
    ),
}

SUGGESTIONS = {
    ("plain", "calm"): (
        "{Try|Watch|See|Go for|Pick} <title>.",
        "<title> {is one to see|may suit you|could be the one|is worth a look|fits}.",
        "{I would go with|I would pick|My pick is|You may like|You could watch} <title>.",
        "{Maybe|Then maybe|So, maybe} <title> {from <year>|by <director>|tonight}.",
        "{Take|Put on} <title>, a <genre> film.",
        "{There is|We have} <title>, {from <year>|a <mood> one|a <genre> film}.",
    ),
    ("plain", "excited"): (
        "{You have to see|Do not miss|Go see|Run to} <title>!",
        "<title> is {amazing|awesome|a gem|brilliant|so good}!",
        "{Wow, try|Oh, you will love|I love} <title>!",
        "{I totally love|I just love} <title>, a {huge|stunning|superb} <genre> film!",
        "{Get ready for|Here comes} <title>, it is {fantastic|incredible|thrilling}!",
    ),
    ("elaborate", "calm"): (
        "I would {respectfully recommend|cautiously propose|suggest considering} <title>.",
        "<title> {represents an appropriate selection|appears particularly suitable|deserves serious consideration}.",
        "{Perhaps consider|You might contemplate watching|An intelligent alternative would be} <title>, {directed by <director>|released during <year>|an accomplished <genre> production}.",
        "{Among comparable productions|Within this particular category}, <title> {remains distinguished|appears exceptionally suitable}.",
    ),
    ("elaborate", "excited"): (
        "<title> is {absolutely extraordinary|a magnificent accomplishment|simply spectacular cinema}!",
        "{Prepare yourself for|Immediately experience} <title>, {an unforgettable cinematographic achievement|an absolutely stunning production}!",
        "{Undoubtedly|Unquestionably}, <title> remains {an incredible masterpiece|a brilliant, unforgettable accomplishment}!",
    ),
}

FACTS = {
    "plain": (
        "It is {from|out of} <year>.",
        "{It was made by|It is by} <director>.",
        "{It has|It stars|You get} <cast>.",
        "It {runs|lasts} <length>.",
        "It is {a <mood> film|<mood>|quite <mood>}.",
        "The pace is <pace>.",
        "{The story|The plot}: <plot>.",
        "It is {a <genre> film|set in the mood of <era>|a film of <era>}.",
        "<cast> {play in it|are in it}, and it {runs|lasts} <length>.",
        "{A <mood> film of|A <pace> film from} <year>.",
    ),
    "elaborate": (
        "{Originally released during|The production originates from} <year>.",
        "<director> {directed this production|supervised the direction} {throughout|with considerable precision|with remarkable discipline}.",
        "{The principal performances belong to|The performances feature} <cast>.",
        "{Its complete duration is|The presentation continues for} <length>.",
        "{The prevailing atmosphere is distinctly|Its atmosphere remains consistently} <mood>.",
        "{The narrative unfolds at a|Its narrative progression maintains a} <pace> {pace|tempo}.",
        "{Concerning the narrative|The narrative concerns the following}: <plot>.",
        "{It exemplifies the traditions of|Aesthetically it belongs to} <era>.",
    ),
}

REASONS = {
    "plain": (
        "{It should work for you|I picked it|It fits} because it is <mood>.",
        "{It fits|It works|That helps} since the pace is <pace>.",
        "{It is good|It stands out} because <cast> {play well|are so good in it}.",
        "It {runs|lasts} <length>, so you {can watch it tonight|know what you get|have time for it}.",
        "{I say so|I chose it} because <director> {made it with care|knows how to tell it}.",
        "It {is|was} made in <year>, which means it has the look of <era>.",
        "{Try it|Give it a go}, since it is <genre> {all the way|at heart}.",
        "{People like it|It is liked} for its {look|mood|end|story}.",
        "{That is why|And that is why} {I thought of it|it came to mind}.",
        "{As you|Given that you} asked for {this kind of film|something like it}, it is {a fair fit|close}.",
    ),
    "elaborate": (
        "{I recommend it|The recommendation stands} because its atmosphere remains <mood> {throughout|consistently}.",
        "{It merits attention|It deserves consideration} thanks to {the direction of <director>|the performances of <cast>}.",
        "{Given that|Considering that, and given that} the narrative tempo is <pace>, {the experience remains comfortable|attention is rewarded}.",
        "{Its duration is <length>|It continues for <length>}, so your evening remains {manageable|conveniently organised}.",
        "{It succeeds|It distinguishes itself} because the <genre> elements are {carefully constructed|intelligently developed}.",
        "{It originates from <year>|It appeared during <year>}, which means the sensibility of <era> {dominates|remains perceptible}.",
    ),
}

CHEERS = {
    "plain": (
        "{It is|This one is} {amazing|awesome|brilliant|fantastic|superb}!",
        "{What a film|So good|Such fun|Wow}!",
        "You will {love it|totally love it|have a huge time}!",
        "{I love this one|I love it so much|Absolutely go for it}!",
        "{Every scene is|The end is} {stunning|thrilling|incredible|wonderful}!",
    ),
    "elaborate": (
        "{Absolutely spectacular|Utterly magnificent|Unforgettable cinema}!",
        "{The performances are incredible|Its photography is stunning|The conclusion is unforgettable}!",
    ),
}

CARES = {
    "plain": (
        "I hope {it warms your heart|you like it, friend|it makes you smile|it brings you comfort}.",
        "{Take care|Be kind to yourself} and {enjoy the night|have a sweet evening|have a lovely time}.",
        "{A warm film for you|It is like a hug|It has a big heart}.",
        "{Happy watching|Cheers, friend|Have a lovely night}.",
        "{I am glad to share it|I would be happy if you like it}.",
    ),
    "elaborate": (
        "{I sincerely hope it provides comfort|May it provide genuine pleasure}, {dear viewer|my friend}.",
        "{It would be my pleasure|I would be delighted} {to assist further|to continue assisting you}.",
    ),
}

QUESTIONS = {
    "plain": (
        "{Does that sound good|Sound good|Does it fit|Will that do}?",
        "{Have you seen it|Do you know it|Did you see it yet}?",
        "{Do you like <mood> films|Do you like <director>|Is <pace> fine with you}?",
        "{Shall I look for more|Want one more|Want another like it}?",
        "{Who will watch with you|Is it for tonight|What did you see last}?",
        "{How long may it be|Is <length> too long|Old or new}?",
    ),
    "elaborate": (
        "{Would that be satisfactory|Does this suggestion correspond to your expectations}?",
        "{Might I enquire which directors you appreciate|Which performances have impressed you recently}?",
        "{Would something comparable also interest you|Should I investigate alternatives}?",
    ),
}

OPENINGS = (
    "{Hi|Hello|Hey}, {I am looking for|I would like|I want} {a <genre> film|something <genre>|some <genre>}.",
    "{Hi|Hello|Good evening}, {can you find me|do you have} {a <mood> film|something <mood>}?",
    "{I feel like|I am in the mood for} {something <mood>|a <mood> film|a <genre> film}, {any ideas|what do you have|what should I see}?",
    "{What should I watch|What is good} if I {want|like} {<genre> films|something <mood>}?",
    "{Looking for|Need} {a <genre> film|something <mood>} {tonight|for the weekend|to watch now}.",
    "{A <mood> <genre> film|Something <mood> and <genre>}, please.",
    "{Can you recommend|Could you suggest} {a <mood> <genre> film|a <genre> film for tonight}?",
    "{My evening is free|It is raining here}, {I want|so I would like} {a <genre> film|something <mood>}.",
)

REACTIONS = (
    (
        "{No, not for me|Not my kind of film|I do not feel it|No thanks|I will pass on that}.",
        "{Hmm, no|That does not grab me|I am not into that one}.",
        "{Not <title>|<title> is not for me}.",
    ),
    (
        "{Maybe|Perhaps}, {I looked it up|I had a look|I read about it}, but {I am not sure|it is not quite it}.",
        "{I opened <title>|I checked <title>}, {not convinced yet|I am on the fence}.",
        "{It looks okay|It could be fine}, but {not tonight|something is missing}.",
    ),
    (
        "{I saved it|I put <title> on my list|I will keep it for later}.",
        "{Not now, but I saved it|Good to know, it is on my list}.",
        "{I might see <title> later|That one is for another day}, {I saved it|I noted it}.",
    ),
    (
        "{Okay, I will watch it|I am watching it tonight|Good, I will see <title>}.",
        "{That works|Deal|That will do}, {I will watch it|putting it on now|I am going with <title>}.",
        "{I watched it and liked it|Nice pick, I will watch <title>}.",
    ),
    (
        "{I love it|Perfect|This is just what I wanted|Oh, I love that one}.",
        "{<title> is wonderful|I adore <title>}, {thank you|that is the one}.",
        "{Best pick in weeks|You got me right}, {I love <title>|this is my film}.",
    ),
)

COMPLAINTS = {
    ("brevity", -1): ("{That was too long to read|Too many words|Please be brief}.",),
    ("brevity", 1): ("{Tell me more next time|That was too short|I would like some more detail}.",),
    ("warmth", -1): ("{You sound cold|A kind word would be nice|That felt distant}.",),
    ("warmth", 1): ("{Less sweet talk please|You are too cuddly|Keep it businesslike}.",),
    ("plainness", -1): ("{Use simple words|Those are big words|Speak plainly please}.",),
    ("plainness", 1): ("{You can use richer words|That was worded too simply|I like finer language}.",),
    ("reasons", -1): ("{Why that one|You gave no reason|Tell me why}.",),
    ("reasons", 1): ("{I do not need reasons|Skip the reasons|Do not explain so much}.",),
    ("curiosity", -1): ("{You could ask me something|Ask what I like|You never ask me anything}.",),
    ("curiosity", 1): ("{Stop asking me things|Too many questions|Do not quiz me}.",),
    ("enthusiasm", -1): ("{That sounded flat|Show some excitement|A bit dull, the way you put it}.",),
    ("enthusiasm", 1): ("{Calm down a little|Too excited for me|Less shouting please}.",),
}

PRAISES = (
    "{I like how you put it|Nicely said|You explain it well}.",
    "{Good answer|That was well put|I like the way you talk}.",
)

FOLLOW_UPS = (
    "{What else|Anything else|Another one|Next please}?",
    "{Something more <mood>|More <genre> please|Still looking for <genre>}.",
    "{Do you have another <genre> film|Is there something <mood>}?",
)
